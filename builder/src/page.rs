//! The page of a run, and that of several side by side: HTML in one file that loads
//! nothing and runs nothing. Drawings are SVG, with their values when pointed at and
//! in a table. It is made of a run's document alone, and what is in that may come
//! from anybody: text goes through `text` and is escaped, and numbers may be any.

mod axis;
mod bars;
mod burn_down;
mod compare;
mod cpu;
mod disclosure;
mod document;
mod events;
mod faults;
mod figure;
mod headline;
mod heat;
mod histogram;
mod latency;
mod lines;
mod load;
mod memory;
mod plot;
mod ranges;
mod run_queue;
mod stages;
mod starts;
mod table;
pub(crate) mod values;

#[cfg(test)]
mod tests;

pub use compare::compare;

use document::Section;
use maud::html;

use crate::bundle::types::Run;

/// The page of a run.
pub fn render(run: &Run) -> String {
    let sections: Vec<Section> = [
        memory::section(run),
        burn_down::section(run),
        starts::section(run),
        latency::section(run),
        run_queue::section(run),
        cpu::section(run),
        load::section(run),
    ]
    .into_iter()
    .chain(faults::sections(run))
    .chain([events::section(run), disclosure::section(run)])
    .collect();
    let source = html! {
        "Its figures are computed from " code { "run.json" } " in the same folder, which has every sample; "
        code { "imgbuild verify" } " computes them again."
    };
    let header = headline::header(run);
    document::page(&headline::title(run), &header, &sections, &source)
}
