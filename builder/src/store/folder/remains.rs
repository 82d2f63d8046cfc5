//! What is left of a fleet that nothing supervises, and so what can be done about
//! it.

use crate::units::counted;

/// What is left of a fleet that nothing supervises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// It can be resumed, and so many of its guests live.
    Fleet {
        /// Guests that live.
        living: u32,
    },
    /// Its files: the host was restarted, which no guest outlives.
    Files,
    /// What a launch made before it was killed.
    Launch,
    /// Nobody can say: what describes it, or the processes, cannot be read.
    Unclear,
}

impl Remains {
    /// What there is, and the commands that go on from there, each of which does what
    /// it says at the first try.
    pub(crate) fn next_step(self, name: &str) -> String {
        match self {
            Self::Fleet { living: 0 } => format!(
                "none of its guests lives; `imgbuild launch --resume {name}` starts them again, \
                 `imgbuild rm {name}` removes the fleet"
            ),
            Self::Fleet { living } => format!(
                "it left {}; `imgbuild launch --resume {name}` resumes the fleet, `imgbuild rm \
                 --force {name}` kills them and removes it",
                counted(living.into(), "living guest")
            ),
            Self::Files => format!(
                "the host was restarted since, which no guest outlives; `imgbuild rm {name}` \
                 removes the fleet"
            ),
            Self::Launch => format!(
                "its launch was killed before it started a guest; `imgbuild rm {name}` removes \
                 what it left"
            ),
            Self::Unclear => format!(
                "its files do not say more; `imgbuild rm --force {name}` kills guests that still \
                 run, and removes the fleet"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_is_one_that_is_not_refused() {
        for (remains, resumes, removes) in [
            (Remains::Fleet { living: 0 }, true, "imgbuild rm f`"),
            (Remains::Fleet { living: 3 }, true, "imgbuild rm --force f`"),
            (Remains::Files, false, "imgbuild rm f`"),
            (Remains::Launch, false, "imgbuild rm f`"),
            (Remains::Unclear, false, "imgbuild rm --force f`"),
        ] {
            let said = remains.next_step("f");
            assert_eq!(said.contains("launch --resume f`"), resumes, "{said}");
            assert!(said.contains(removes), "{said}");
        }
    }
}
