//! User ids for a fleet's guests that neither another fleet nor anybody else on
//! this host has.

use std::path::Path;

use super::claims::Others;
use crate::host::user_ids::{self, IdRange, Mapped};
use crate::sample::source::Source;
use crate::units::counted;

/// Under which user ids guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    Own,
    /// Guest N under this plus N.
    From(u32),
    /// Each under one that nobody else has, where this process may and can give
    /// them such; else all under the supervisor's.
    Apart,
}

/// Guests cannot have the user ids that they were to have.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Those that were asked for are another fleet's.
    #[error(
        "guests under the user ids from {base} up would share some with the fleet {fleet}, which \
         has {taken}; choose another --run-as-base, or leave it out"
    )]
    Taken {
        /// The first id asked for.
        base: u32,
        /// The fleet that has some of them.
        fleet: String,
        taken: IdRange,
    },
    /// Those that were asked for are not here.
    #[error(
        "guest N would run under user id {base} + N, and this user namespace does not have all of \
         {}: it has {mapped}; choose another --run-as-base, or leave it out",
        IdRange::new(*base, *guests)
    )]
    Unmapped {
        /// The first id asked for.
        base: u32,
        /// Numbers up to the last guest's.
        guests: u32,
        /// The ids that there are, for people.
        mapped: String,
    },
    /// This process cannot run anything under other ids.
    #[error(
        "guests cannot run under user ids of their own: {0}; leave --run-as-base out to run them \
         under yours"
    )]
    Denied(String),
    /// Other fleets have all there are.
    #[error(
        "no {guests} consecutive user ids are free, one for each number up to the last guest's; \
         `imgbuild rm FLEET` gives back those of a fleet that has ended, and --run-as-base 0 runs \
         guests under your own id"
    )]
    None {
        /// Numbers up to the last guest's.
        guests: u32,
    },
    /// A fleet has no more.
    #[error(
        "cannot add guests: the fleet has the user ids {own}, and the next ones, {}, are in use or \
         not mapped in this user namespace; launch a second fleet",
        IdRange::new(own.first.saturating_add(own.count), guests.saturating_sub(own.count))
    )]
    NoMore {
        own: IdRange,
        /// Numbers up to the last guest's.
        guests: u32,
    },
}

/// The user ids for a new fleet of so many guests; `None` if they are to run under
/// the supervisor's, which is said where it was not asked for.
pub(crate) fn choose(
    users: Users,
    guests: u32,
    others: &Others,
) -> Result<Option<IdRange>, UsersError> {
    let fleets: Vec<_> = others.users().collect();
    match users {
        Users::Own => Ok(None),
        Users::From(base) => {
            let here = Here::read();
            let range = here.from(base, guests, &fleets)?;
            if here.somebody_has(range) {
                tracing::warn!(
                    "users, groups or containers of this host have some of the user ids {range}: \
                     they reach these guests"
                );
            }
            Ok(Some(range))
        }
        Users::Apart => {
            let here = Here::read();
            if let Some(lack) = here.lack(guests) {
                tracing::warn!(
                    "all guests run under this process's user id, and one that has taken over its \
                     QEMU reaches the others: {lack}"
                );
                return Ok(None);
            }
            here.apart(guests, &fleets).map(Some)
        }
    }
}

/// The user ids of a fleet that has `own`, for so many guests.
pub(crate) fn extend(own: IdRange, guests: u32, others: &Others) -> Result<IdRange, UsersError> {
    if guests <= own.count {
        return Ok(own);
    }
    Here::read().more(own, guests, &others.users().collect::<Vec<_>>())
}

/// The user ids that a fleet has of which only the first is known.
pub(crate) fn assumed(base: u32, guests: u32) -> IdRange {
    let whole = IdRange::whole(base);
    if Here::read().mapped.contains(whole) {
        whole
    } else {
        IdRange::new(base, guests)
    }
}

/// What this host has of user ids, and this process may do with them.
struct Here {
    mapped: Mapped,
    /// Those that files give to somebody.
    given: Vec<IdRange>,
    /// Those that processes run under.
    running: Vec<IdRange>,
    /// Why this process cannot use them, if so.
    hindrance: Option<String>,
}

impl Here {
    fn read() -> Self {
        let root = Path::new("/");
        // `imgbuild check` reports what cannot be seen.
        let mut unseen = Vec::new();
        let mut source = Source::new(root, &mut unseen);
        let missing = user_ids::missing_capabilities();
        let hindrance = if !missing.is_empty() {
            Some(format!("this process lacks {}", missing.join(", ")))
        } else if user_ids::denies_groups(&mut source) {
            Some("this user namespace denies setgroups(2)".to_owned())
        } else {
            None
        };
        Self {
            mapped: Mapped::read(&mut source),
            given: user_ids::given(&mut source),
            running: user_ids::running(root),
            hindrance,
        }
    }

    /// Why there are no ids for guests here, whatever other fleets have.
    fn lack(&self, guests: u32) -> Option<String> {
        let most = self.mapped.most(&self.given);
        let few = (most < guests).then(|| {
            format!(
                "this user namespace has {}, with {most} in a row that nobody else has, and a \
                 fleet whose last guest is number {} takes {guests}",
                counted(self.mapped.count(), "user id"),
                guests.saturating_sub(1)
            )
        });
        self.hindrance.clone().or(few)
    }

    fn apart(&self, guests: u32, fleets: &[(&str, IdRange)]) -> Result<IdRange, UsersError> {
        let fleets = fleets.iter().map(|(_, taken)| taken);
        let taken: Vec<_> = self
            .given
            .iter()
            .chain(&self.running)
            .chain(fleets)
            .copied()
            .collect();
        let free = self.mapped.free(&taken, guests);
        free.ok_or(UsersError::None { guests })
    }

    fn from(
        &self,
        base: u32,
        guests: u32,
        fleets: &[(&str, IdRange)],
    ) -> Result<IdRange, UsersError> {
        if let Some(hindrance) = &self.hindrance {
            return Err(UsersError::Denied(hindrance.clone()));
        }
        let ranges = [IdRange::whole(base), IdRange::new(base, guests)];
        let range = ranges
            .into_iter()
            .find(|range| self.mapped.contains(*range));
        let range = range.ok_or_else(|| UsersError::Unmapped {
            base,
            guests,
            mapped: self.mapped.to_string(),
        })?;
        match fleets.iter().find(|(_, taken)| taken.overlaps(range)) {
            None => Ok(range),
            Some((fleet, taken)) => Err(UsersError::Taken {
                base,
                fleet: (*fleet).to_owned(),
                taken: *taken,
            }),
        }
    }

    fn more(
        &self,
        own: IdRange,
        guests: u32,
        fleets: &[(&str, IdRange)],
    ) -> Result<IdRange, UsersError> {
        let range = IdRange::new(own.first, guests);
        let new = IdRange::new(own.first + own.count, guests - own.count);
        let is_free = self.mapped.contains(range)
            && !self.somebody_has(new)
            && !fleets.iter().any(|(_, taken)| taken.overlaps(new));
        is_free
            .then_some(range)
            .ok_or(UsersError::NoMore { own, guests })
    }

    fn somebody_has(&self, range: IdRange) -> bool {
        let mut taken = self.given.iter().chain(&self.running);
        taken.any(|taken| taken.overlaps(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(mapped: IdRange) -> Here {
        Here {
            mapped: Mapped::from(vec![mapped]),
            given: vec![IdRange::new(0, 1_001)],
            running: vec![IdRange::new(2_100_000, 1)],
            hindrance: None,
        }
    }

    fn many() -> Here {
        here(IdRange::new(0, u32::MAX))
    }

    fn few() -> Here {
        here(IdRange::new(0, 65_536))
    }

    #[test]
    fn ids_are_apart_from_fleets_users_and_processes() {
        let one = [("f1", IdRange::whole(2_000_000))];
        assert_eq!(many().apart(3, &[]).unwrap(), IdRange::whole(2_000_000));
        assert_eq!(many().apart(3, &one).unwrap(), IdRange::whole(2_200_000));
        let all = [("f1", IdRange::new(1_000, 60_000))];
        let error = few().apart(10_000, &all).unwrap_err().to_string();
        assert!(
            error.contains("10000 consecutive") && error.contains("imgbuild rm"),
            "{error}"
        );
    }

    #[test]
    fn a_namespace_that_has_no_ids_for_guests_says_why() {
        assert_eq!(many().lack(100_000), None);
        assert_eq!(few().lack(64_533), None);
        let lack = few().lack(64_534).unwrap();
        assert!(
            lack.contains("65,536 user ids") && lack.contains("64533 in a row"),
            "{lack}"
        );
        let lack = here(IdRange::new(0, 1)).lack(1).unwrap();
        assert!(lack.contains("has 1 user id,"), "{lack}");
        let denied = Here {
            hindrance: Some("this process lacks CAP_SETUID".to_owned()),
            ..many()
        };
        assert_eq!(denied.lack(1), denied.hindrance);
        let error = denied.from(70_000, 1, &[]).unwrap_err().to_string();
        assert!(
            error.contains("lacks CAP_SETUID; leave --run-as-base out"),
            "{error}"
        );
    }

    #[test]
    fn ids_asked_for_are_there_and_no_other_fleet_s() {
        let others = [("f1", IdRange::whole(70_000))];
        for base in [0, 1, 70_000, 169_999] {
            let error = many().from(base, 3, &others).unwrap_err().to_string();
            assert!(
                error.contains("fleet f1") && error.contains("has 70000 to 169999"),
                "{error}"
            );
        }
        for base in [170_000, 2_000_000] {
            assert_eq!(many().from(base, 3, &others).unwrap(), IdRange::whole(base));
        }
        // As many as the fleet has guests will do.
        assert_eq!(few().from(65_533, 3, &[]).unwrap(), IdRange::new(65_533, 3));
        let error = few().from(65_534, 3, &[]).unwrap_err().to_string();
        assert!(
            error.contains("65534 to 65536") && error.contains("0 to 65535"),
            "{error}"
        );
    }

    #[test]
    fn a_fleet_that_grows_takes_what_follows_its_own_if_nobody_has_it() {
        let own = IdRange::new(10_000, 4_096);
        assert_eq!(
            few().more(own, 5_000, &[]).unwrap(),
            IdRange::new(10_000, 5_000)
        );
        let next = [("f2", IdRange::new(14_096, 4_096))];
        for (here, guests, fleets) in [
            (few(), 4_097, &next[..]),
            (few(), 55_537, &[]),
            (here(IdRange::new(0, 14_096)), 4_097, &[]),
        ] {
            let error = here.more(own, guests, fleets).unwrap_err().to_string();
            assert!(error.contains("10000 to 14095"), "{error}");
        }
        assert_eq!(extend(own, 4_096, &Others::default()).unwrap(), own);
    }
}
