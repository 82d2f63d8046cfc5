//! `samples.csv`: every sample of a run, one a line.

use std::fmt::Display;

use super::csv::Sheet;
use super::types::{
    Baseline, CpuClass, GuestReply, Hold, MemoryFigures, Moment, Run, Stage, Storm,
};
use crate::units::GuestIndex;

/// The first line. `stage` is a number of guests, `baseline`, `hold` or `storm`, and
/// empty for what was measured all the time.
const HEAD: [&str; 6] = ["stage", "what", "guest", "at", "value", "failed"];

/// The text of the file.
pub(crate) fn csv(run: &Run) -> String {
    let mut samples = Samples {
        sheet: Sheet::new(&HEAD),
        stage: String::new(),
    };
    run.series.iter().for_each(|moment| samples.moment(moment));
    if let Some(baseline) = &run.baseline {
        samples.baseline(baseline);
    }
    run.stages.iter().for_each(|stage| samples.stage(stage));
    if let Some(hold) = &run.hold {
        samples.hold(hold);
    }
    if let Some(storm) = &run.storm {
        samples.storm(storm);
    }
    samples.sheet.text()
}

struct Samples {
    sheet: Sheet,
    stage: String,
}

impl Samples {
    fn moment(&mut self, moment: &Moment) {
        let Moment {
            at,
            ready,
            alive,
            available,
            unmerged,
            saved,
            ksmd,
        } = moment;
        let at = Some(*at);
        self.timed("ready", at, Some(ready));
        self.timed("alive", at, Some(alive));
        self.timed("available", at, available.as_ref());
        self.timed("unmerged", at, unmerged.as_ref());
        self.timed("saved", at, saved.as_ref());
        self.timed("ksmd", at, ksmd.as_ref());
    }

    fn baseline(&mut self, baseline: &Baseline) {
        "baseline".clone_into(&mut self.stage);
        self.value("guests", baseline.guests);
        self.value("ready", baseline.ready);
        self.value("growing", baseline.growing);
        self.memory(None, &baseline.memory);
        self.value("peak", baseline.peak);
        self.replies("login", &baseline.logins);
    }

    fn stage(&mut self, stage: &Stage) {
        self.stage = stage.guests.to_string();
        self.value("guests", stage.guests);
        self.value("ready", stage.ready);
        for (what, at) in [
            ("began", stage.began),
            ("grown", stage.grown),
            ("settled", stage.settled),
            ("ended", stage.ended),
        ] {
            self.value(what, at);
        }
        self.memory(None, &stage.memory);
        for (name, value) in &stage.ksm {
            self.value(&format!("ksm.{name}"), value);
        }
        for start in &stage.starts {
            let (guest, process) = (start.guest, Some(start.process));
            self.guest("process", guest, None, Some(start.process));
            self.guest("spoke", guest, process, start.spoke);
            self.guest("ready", guest, process, start.ready);
        }
        self.optional("deadline", stage.deadline);
        self.replies("answer", &stage.answers);
        self.replies("login", &stage.logins);
        for burn in &stage.burns {
            self.guest("rounds", burn.guest, None, burn.rounds);
            self.guest("cpu", burn.guest, None, burn.cpu);
        }
        for (class, value) in &stage.cpu {
            self.value(&format!("cpu.{}", name(*class)), value);
        }
        self.optional("wakeups", stage.wakeups);
        for (name, value) in &stage.pressure {
            self.value(&format!("pressure.{name}"), value);
        }
        self.value("over_commit.cpu", stage.over_commit.cpu);
        self.value("over_commit.memory", stage.over_commit.memory);
        self.optional("over_commit.disk", stage.over_commit.disk);
        self.optional("predicted", stage.predicted);
    }

    fn hold(&mut self, hold: &Hold) {
        "hold".clone_into(&mut self.stage);
        self.value("began", hold.began);
        self.value("ended", hold.ended);
        let [first, last] = &hold.memory;
        self.memory(Some(hold.began), first);
        self.memory(Some(hold.ended), last);
        self.replies("answer", &hold.answers);
        self.value("replaced", hold.replaced);
        self.value("restarts", hold.restarts);
    }

    fn storm(&mut self, storm: &Storm) {
        "storm".clone_into(&mut self.stage);
        self.value("began", storm.began);
        self.value("ended", storm.ended);
        self.value("guests", storm.guests);
        self.optional("resumed", storm.resumed);
        for guest in &storm.killed {
            self.guest("killed", *guest, Some(storm.began), Some(1));
        }
        self.replies("back", &storm.back);
        for guest in &storm.lost {
            self.guest("lost", *guest, None, Some(1));
        }
    }

    fn memory(&mut self, at: Option<f64>, memory: &MemoryFigures) {
        let MemoryFigures {
            bytes,
            count,
            parts,
            available,
            charged,
        } = memory;
        self.timed("memory.bytes", at, Some(bytes));
        self.timed("memory.count", at, Some(count));
        self.timed("memory.cannot_merge", at, Some(parts.cannot_merge));
        self.timed("memory.shared_by_all", at, Some(parts.shared_by_all));
        self.timed("memory.kernel", at, Some(parts.kernel));
        self.timed("memory.ksm", at, Some(parts.ksm));
        self.timed("memory.available", at, available.as_ref());
        self.timed("memory.charged", at, charged.as_ref());
    }

    fn replies(&mut self, what: &str, replies: &[GuestReply]) {
        for reply in replies {
            let seconds = reply.seconds.to_string();
            let failed = reply.failed.as_deref().unwrap_or_default();
            self.row(what, &reply.guest.to_string(), "", &seconds, failed);
        }
    }

    fn guest(
        &mut self,
        what: &str,
        guest: GuestIndex,
        at: Option<f64>,
        value: Option<impl Display>,
    ) {
        if let Some(value) = value {
            self.row(what, &guest.to_string(), &text(at), &value.to_string(), "");
        }
    }

    fn timed(&mut self, what: &str, at: Option<f64>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.row(what, "", &text(at), &value.to_string(), "");
        }
    }

    fn value(&mut self, what: &str, value: impl Display) {
        self.optional(what, Some(value));
    }

    fn optional(&mut self, what: &str, value: Option<impl Display>) {
        self.timed(what, None, value);
    }

    fn row(&mut self, what: &str, guest: &str, at: &str, value: &str, failed: &str) {
        self.sheet
            .row(&[&self.stage, what, guest, at, value, failed]);
    }
}

fn text(at: Option<f64>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn name(class: CpuClass) -> &'static str {
    match class {
        CpuClass::Guests => "guests",
        CpuClass::Supervisor => "supervisor",
        CpuClass::Ksm => "ksm",
        CpuClass::Others => "others",
        CpuClass::Idle => "idle",
    }
}
