//! Checks a bundle: that its files are those of its list of digests, that its tables
//! and its headline follow from its samples, and that these can be true.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::files::{HISTOGRAMS, SAMPLES, SHA256SUMS};
use super::open::{FileDifference, Files, OpenError};
use super::types::{Headline, Run};
use super::{figures, histograms, samples, sound};
use crate::staging::files_below;

/// How far two figures may be apart that are the same, as a share of them: sums may
/// be taken in another order.
const ROUNDING: f64 = 1e-9;

/// One way in which a bundle is not what it says.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(untagged)]
pub enum Difference {
    /// A file is missing or another one.
    #[error(transparent)]
    File(FileDifference),
    /// Of what is in the files.
    #[error(transparent)]
    Content(ContentDifference),
}

/// One way in which the content of a bundle contradicts itself.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum ContentDifference {
    /// A file is there that is not listed.
    #[error("{file}: not in {SHA256SUMS}")]
    Extra {
        /// Path in the folder.
        file: String,
    },
    /// A table is not what the document gives.
    #[error("{file}: it does not have the samples of run.json")]
    Table {
        /// Its name.
        file: String,
    },
    /// A figure is not what the samples give.
    #[error("headline.{figure}: {stated}, and the samples give {computed}")]
    Figure {
        /// Its name.
        figure: String,
        /// As the document says.
        stated: Value,
        /// As it is computed.
        computed: Value,
    },
    /// The samples cannot be true.
    #[error("run.json: {fault}")]
    Unsound {
        /// Why.
        fault: String,
    },
}

/// Checks a bundle; an empty list means that nothing differs.
pub fn verify(folder: &Path) -> Result<Vec<Difference>, OpenError> {
    let files = Files::read(folder)?;
    let differing = files.differences()?;
    let mut differences: Vec<_> = differing.into_iter().map(Difference::File).collect();
    let found =
        files_below(folder).map_err(|(path, source)| OpenError::Unreadable { path, source })?;
    let listed: BTreeSet<_> = files.listed.keys().map(String::as_str).collect();
    let extra = found.into_iter();
    let extra = extra.filter(|file| file != SHA256SUMS && !listed.contains(file.as_str()));
    let mut contents: Vec<_> = extra
        .map(|file| ContentDifference::Extra { file })
        .collect();
    // What follows from samples that are not the run's says nothing.
    if differences.is_empty() {
        let run = files.run()?;
        for (file, text) in [
            (SAMPLES, samples::csv(&run)),
            (HISTOGRAMS, histograms::csv(&run)),
        ] {
            if files.table(file)? != text.as_bytes() {
                let file = file.to_owned();
                contents.push(ContentDifference::Table { file });
            }
        }
        contents.extend(of_run(&run));
    }
    differences.extend(contents.into_iter().map(Difference::Content));
    Ok(differences)
}

/// What in a run does not follow from its samples.
fn of_run(run: &Run) -> Vec<ContentDifference> {
    let faults = sound::faults(run).into_iter();
    let faults = faults.map(|fault| ContentDifference::Unsound { fault });
    faults
        .chain(of_headline(&run.headline, &figures::headline(run)))
        .collect()
}

fn of_headline(stated: &Headline, computed: &Headline) -> Vec<ContentDifference> {
    let [stated, computed] =
        [stated, computed].map(|figures| serde_json::to_value(figures).expect("plain data"));
    let names = computed.as_object().into_iter().flat_map(|all| all.keys());
    names
        .filter(|name| !are_same(&stated[*name], &computed[*name]))
        .map(|name| ContentDifference::Figure {
            figure: name.clone(),
            stated: stated[name].clone(),
            computed: computed[name].clone(),
        })
        .collect()
}

fn are_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= ROUNDING * a.abs().max(b.abs()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::example;
    use super::*;

    #[test]
    fn a_figure_that_the_samples_do_not_give_is_named() {
        let mut run = example();
        assert_eq!(of_run(&run), []);
        run.headline.answered += 1;
        run.headline.fairness = run.headline.fairness.map(|index| index * (1.0 + 1e-12));
        run.headline.baseline_ratio = None;
        let said: Vec<_> = of_run(&run).iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0], "headline.answered: 301, and the samples give 300");
        assert!(
            said[1].starts_with("headline.baseline_ratio: null, and"),
            "{said:?}"
        );
    }

    #[test]
    fn samples_that_cannot_be_true_are_named() {
        type Change = fn(&mut Run);
        let changes: [(Change, &str); 5] = [
            (
                |run| run.stages[2].ready = 101,
                "stage 100: more guests were ready",
            ),
            (
                |run| run.stages[2].grown = 0.0,
                "stage 100: its times are not in order",
            ),
            (
                |run| run.stages.swap(0, 1),
                "stage 1: it does not come after",
            ),
            (
                |run| {
                    let answers = &mut run.stages[1].answers;
                    answers[1] = answers[0].clone();
                },
                "stage 10, answers: g00000 is there twice",
            ),
            (
                |run| run.stages[1].burns[3].guest = "g00010".parse().unwrap(),
                "stage 10, burns: g00010 is not a guest",
            ),
        ];
        for (change, fault) in changes {
            let mut run = example();
            change(&mut run);
            let found = sound::faults(&run);
            assert!(found.len() == 1 && found[0].starts_with(fault), "{found:?}");
        }
    }
}
