//! Changes host settings as a report's fixes say, and restores them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::readiness::Report;
use crate::guest::ksmd::Rate;
use crate::host::finding::Fix;
use crate::host::settings::{
    self, Applied, Held, Holder, Keeper, Knob, Module, Outcome, Owner, Setting, SettingsError,
    load_module,
};
use crate::interrupt::Interrupt;
use crate::sample::ksm;
use crate::sample::source::Source;
use crate::store::spec::HostSettings;
use crate::text::printable;
use crate::vmm::Accel;

/// Settings that hold for as long as this value lives; dropped, it puts back
/// those that nobody else holds.
#[derive(Debug)]
pub(crate) struct Lease {
    holder: Holder,
    /// Whether the fleet is one for which settings were changed.
    settings: HostSettings,
}

impl Lease {
    /// Does what `report` says for the fleet that this process launches.
    pub(crate) fn new(
        report: &Report,
        fleet: &str,
        interrupt: &Interrupt,
    ) -> Result<Self, SettingsError> {
        let lease = Self {
            holder: Holder::this_process(fleet)?,
            settings: HostSettings::Fixed,
        };
        apply(report, &lease.holder, interrupt)?;
        owner().join(&lease.holder)?;
        for fix in report.fixes() {
            if let Fix::OpenFiles(limit) = *fix {
                let limits = Rlimit {
                    maximum: Some(limit),
                    ..getrlimit(Resource::Nofile)
                };
                if let Err(error) = setrlimit(Resource::Nofile, limits) {
                    tracing::warn!("cannot raise the limit of open files to {limit}: {error}");
                }
            }
        }
        Ok(lease)
    }

    /// Has ksmd go as fast as it may for whoever runs without a supervisor, which would
    /// set its rate; whoever else sets it already, goes on doing so.
    pub(crate) fn hasten(&self) {
        match owner().drive(&Rate::fastest().settings(), &self.holder) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::info!("ksmd's rate stays as it is: {why}"),
            Err(error) => tracing::warn!("ksmd's rate stays as it is: {error}"),
        }
    }

    /// Keeps what is changed already, for the fleet that this process supervises, if
    /// this user may.
    pub(crate) fn of_others(fleet: &str, settings: HostSettings) -> Option<Self> {
        let holder = Holder::this_process(fleet).ok()?;
        match owner().join(&holder) {
            Ok(()) => Some(Self { holder, settings }),
            Err(SettingsError::Denied { .. }) => None,
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }
}

impl Lease {
    /// Who keeps settings from being restored, where that is news at the end of this
    /// fleet: it changed them itself, or was the last that root knows of. It is none if
    /// another supervisor goes on with the fleet.
    fn keepers(&self, report: &settings::Report) -> Option<String> {
        let all: Vec<_> = report.held.iter().flat_map(|held| &held.by).collect();
        let own = self.holder.fleet();
        if all
            .iter()
            .any(|keeper| keeper.fleet() == own && own.is_some())
        {
            return None;
        }
        let is_news = |keeper: &&&Keeper| {
            self.settings == HostSettings::Fixed || matches!(keeper, Keeper::Guests(_))
        };
        let news: BTreeSet<_> = all
            .iter()
            .filter(is_news)
            .map(ToString::to_string)
            .collect();
        let news: Vec<_> = news.into_iter().collect();
        (!news.is_empty()).then(|| news.join(", "))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match owner().release(&self.holder) {
            Ok(report) => {
                log_restored(&report);
                if let Some(keepers) = self.keepers(&report) {
                    tracing::info!(
                        "did not restore host settings, because {keepers} may need them; they \
                         are restored at the end of root's last fleet, or by `imgbuild check \
                         --restore` once nobody does"
                    );
                }
            }
            Err(error) => tracing::warn!(
                "cannot restore host settings: {error}; run `imgbuild check --restore`"
            ),
        }
    }
}

/// Changes what `report` says that `--fix` changes, for `holder`, and says so.
pub(crate) fn apply(
    report: &Report,
    holder: &Holder,
    interrupt: &Interrupt,
) -> Result<Vec<Applied>, SettingsError> {
    for module in modules(report) {
        match load_module(module, interrupt) {
            Ok(()) => tracing::info!("loaded the module {module}; no restore unloads it"),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    if is_ksmd_hidden() {
        tracing::info!(
            "ksmd is not among the processes that are seen here, so its priority stays as it \
             is; in a container, renice it on the host"
        );
    }
    let applied = owner().apply(&settings(report), holder)?;
    for Applied {
        knob,
        wanted,
        outcome,
    } in &applied
    {
        match outcome {
            Outcome::Written { old, now } => tracing::info!("{knob}: {old} → {now}"),
            Outcome::Held { now, .. } | Outcome::Already { now } => {
                tracing::debug!("{knob}: is {now} already");
            }
            Outcome::Refused { why } => tracing::warn!("{knob} is not set to {wanted}: {why}"),
        }
    }
    Ok(applied)
}

/// Puts back what imgbuild changed and no living fleet holds, and says so.
pub(crate) fn restore() -> Result<settings::Report, SettingsError> {
    let report = owner().restore()?;
    log_restored(&report);
    for held in &report.held {
        tracing::info!(
            "{} stays {}, because {} may need it",
            held.knob,
            held.wrote,
            names(held)
        );
    }
    Ok(report)
}

/// What [`apply`] would do, as a shell script, and what is left to the host's
/// owner, as comments.
pub(crate) fn script(report: &Report) -> String {
    let mut script = settings::script(&settings(report), &modules(report));
    for finding in report.obstacles() {
        if let Some(fix @ (Fix::Manual { .. } | Fix::OpenFiles(_))) = &finding.fix {
            let text = printable(&format!("{}: {fix}", finding.id));
            let _ = write!(script, "\n# Not done by --fix: {text}\n");
        }
    }
    script
}

/// Whether there is KSM, and its thread is in another PID namespace.
fn is_ksmd_hidden() -> bool {
    let (root, mut unseen) = (Path::new("/"), Vec::new());
    let is_there = ksm::read(root, &mut unseen).is_some();
    is_there && ksm::ksmd(&mut Source::new(root, &mut unseen)).is_none()
}

fn names(held: &Held) -> String {
    let by: Vec<_> = held.by.iter().map(ToString::to_string).collect();
    by.join(", ")
}

fn owner() -> Owner {
    Owner::new(Path::new("/"))
}

fn log_restored(report: &settings::Report) {
    for restored in &report.restored {
        let (knob, from, to) = (restored.knob, restored.from, restored.to);
        tracing::info!("{knob}: {from} → {to}, restored");
    }
    for left in &report.left {
        tracing::warn!(
            "did not restore {} to {}: {}",
            left.knob,
            left.old,
            left.why
        );
    }
    if let Some(merged) = &report.merged {
        tracing::warn!("{} pages stay merged: {}", merged.pages, merged.why);
    }
}

/// The settings to change; where two fixes want different values, the larger.
fn settings(report: &Report) -> Vec<Setting> {
    let mut values = BTreeMap::<Knob, i64>::new();
    for fix in report.fixes() {
        if let Fix::Settings(settings) = fix {
            for &Setting { knob, value } in settings {
                let most = values.entry(knob).or_insert(value);
                *most = value.max(*most);
            }
        }
    }
    let settings = values.into_iter();
    settings
        .map(|(knob, value)| Setting { knob, value })
        .collect()
}

/// The modules to load: they are KVM's, and nothing to a fleet under TCG.
fn modules(report: &Report) -> Vec<Module> {
    if report.want.machine.accel == Accel::Tcg {
        return Vec::new();
    }
    let mut modules: Vec<_> = report
        .fixes()
        .filter_map(|fix| match fix {
            Fix::Module(module) => Some(*module),
            _ => None,
        })
        .collect();
    modules.dedup();
    modules
}
