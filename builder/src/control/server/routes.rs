//! Which request a path and a method stand for.

use hyper::{Method, StatusCode};

use super::refusal::Refusal;
use crate::control::bridge::Act;
use crate::control::types::API_VERSION;
use crate::units::GuestIndex;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Metrics,
    Schema,
    Fleet,
    Memory,
    Guest(GuestIndex),
    Listen(GuestIndex),
    Send(GuestIndex),
    Events,
    Act(Act),
    Scale,
    Ask,
    Attend,
}

impl Route {
    /// What a request is for, or why nothing.
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, Refusal> {
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let rest = match parts.as_slice() {
            ["metrics"] => return only(method, &[(Method::GET, Self::Metrics)]),
            ["v1", rest @ ..] => rest,
            [version, ..] if is_version(version) => return Err(other_version(version)),
            _ => return Err(unknown(path)),
        };
        match rest {
            ["schema"] => only(method, &[(Method::GET, Self::Schema)]),
            ["fleet"] => only(method, &[(Method::GET, Self::Fleet)]),
            ["memory"] => only(method, &[(Method::GET, Self::Memory)]),
            ["events"] => only(method, &[(Method::GET, Self::Events)]),
            ["guests", id] => only(method, &[(Method::GET, Self::Guest(guest(id)?))]),
            ["guests", id, "console"] => {
                let guest = guest(id)?;
                only(
                    method,
                    &[
                        (Method::GET, Self::Listen(guest)),
                        (Method::POST, Self::Send(guest)),
                    ],
                )
            }
            ["stop"] => only(method, &[(Method::POST, Self::Act(Act::Stop))]),
            ["kill"] => only(method, &[(Method::POST, Self::Act(Act::Kill))]),
            ["restart"] => only(method, &[(Method::POST, Self::Act(Act::Restart))]),
            ["scale"] => only(method, &[(Method::POST, Self::Scale)]),
            ["ask"] => only(method, &[(Method::POST, Self::Ask)]),
            ["attend"] => only(method, &[(Method::POST, Self::Attend)]),
            _ => Err(unknown(path)),
        }
    }
}

/// The route of this method, or which methods there are.
fn only(method: &Method, routes: &[(Method, Route)]) -> Result<Route, Refusal> {
    // The server leaves out the body of an answer to HEAD (RFC 9110, section 9.3.2).
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    let found = routes.iter().find(|(allowed, _)| allowed == wanted);
    found.map(|(_, route)| *route).ok_or_else(|| {
        let allowed: Vec<_> = routes.iter().map(|(method, _)| method.as_str()).collect();
        let allowed = allowed.join(", ");
        Refusal {
            allow: Some(allowed.clone()),
            ..Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not answered here; use {allowed}"),
            )
        }
    })
}

fn guest(id: &str) -> Result<GuestIndex, Refusal> {
    let named = id.parse::<GuestIndex>();
    named.map_err(|error| Refusal::new(StatusCode::NOT_FOUND, error.to_string()))
}

fn is_version(part: &str) -> bool {
    let digits = part.strip_prefix('v').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn other_version(version: &str) -> Refusal {
    let mut refusal = Refusal::new(
        StatusCode::NOT_FOUND,
        format!("version {version} of the interface is not supported here; use /v{API_VERSION}"),
    );
    refusal.error.versions = Some(vec![API_VERSION]);
    refusal
}

fn unknown(path: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at {path}; GET /v{API_VERSION}/schema lists what there is"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_method_name_one_thing() {
        let seven = GuestIndex::new(7).unwrap();
        for (method, path, route) in [
            (Method::GET, "/metrics", Route::Metrics),
            (Method::GET, "/v1/schema", Route::Schema),
            (Method::GET, "/v1/fleet", Route::Fleet),
            (Method::GET, "/v1/memory", Route::Memory),
            (Method::GET, "/v1/guests/g00007", Route::Guest(seven)),
            (
                Method::GET,
                "/v1/guests/g00007/console",
                Route::Listen(seven),
            ),
            (
                Method::POST,
                "/v1/guests/g00007/console",
                Route::Send(seven),
            ),
            (Method::GET, "/v1/events", Route::Events),
            (Method::POST, "/v1/stop", Route::Act(Act::Stop)),
            (Method::POST, "/v1/kill", Route::Act(Act::Kill)),
            (Method::POST, "/v1/restart", Route::Act(Act::Restart)),
            (Method::POST, "/v1/scale", Route::Scale),
            (Method::POST, "/v1/ask", Route::Ask),
            (Method::POST, "/v1/attend", Route::Attend),
        ] {
            assert_eq!(Route::of(&method, path).unwrap(), route, "{path}");
            let head = Route::of(&Method::HEAD, path).ok();
            let is_read = method == Method::GET || path.ends_with("/console");
            assert_eq!(head.is_some(), is_read, "{path}");
            let refusal = Route::of(&Method::DELETE, path).unwrap_err();
            assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
            assert!(refusal.allow.unwrap().contains(method.as_str()), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for path in [
            "",
            "/",
            "*",
            "//",
            "/v1",
            "/v1/",
            "/v1/fleet/",
            "/v1//fleet",
            "/v1/../v1/fleet",
            "/v1/guests",
            "/v1/guests/7",
            "/v1/guests/g00007/",
            "/v1/guests/g00007/console/x",
            "/v1/guests/g100000",
            "/metrics/",
            "/vx/fleet",
            "/v/fleet",
            "/V1/fleet",
        ] {
            let refusal = Route::of(&Method::GET, path).unwrap_err();
            assert_eq!(refusal.status, StatusCode::NOT_FOUND, "{path}");
            assert_eq!(refusal.error.versions, None, "{path}");
        }
    }

    #[test]
    fn another_version_is_answered_with_those_there_are() {
        for path in ["/v2/fleet", "/v0", "/v99999999999999999999/x"] {
            let refusal = Route::of(&Method::GET, path).unwrap_err();
            assert_eq!(refusal.status, StatusCode::NOT_FOUND);
            assert_eq!(refusal.error.versions, Some(vec![1]));
            assert!(refusal.error.error.contains("/v1"));
        }
    }
}
