//! User ids for a fleet's guests, apart from those of other fleets.

use std::path::Path;

use super::folder;
use super::spec::FleetSpec;
use crate::units::MAX_GUESTS;

/// The first id that is given out: above those of people and of the containers
/// that they have by default (subuid(5)).
const FIRST: u32 = 2_000_000;
/// Ids that a fleet has, one for each guest that it may be scaled to.
const RANGE: u32 = MAX_GUESTS;

/// Under which user ids guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// All under the supervisor's.
    Own,
    /// Guest N under this plus N.
    From(u32),
    /// Each under one that no guest of another fleet has.
    Apart,
}

/// A fleet's user ids are another fleet's.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Those that were asked for.
    #[error(
        "guests under the user ids from {base} up would share some with the fleet {fleet}, which \
         has {RANGE} from {taken} up; choose another --run-as-base, or leave it out"
    )]
    Taken {
        /// The first id asked for.
        base: u32,
        /// The fleet that has some of them.
        fleet: String,
        /// Its first id.
        taken: u32,
    },
    /// All there are.
    #[error(
        "no {RANGE} user ids from {FIRST} up are free of other fleets; `imgbuild rm` clears one \
         that is over"
    )]
    None,
}

/// The user id of the first guest of the fleet with this folder; `None` if
/// guests are to run under the supervisor's. Ids are told from those of the
/// fleets beside it, which are the same user's, whether they run or not.
pub fn base(fleet: &Path, users: Users) -> Result<Option<u32>, UsersError> {
    if users == Users::Own {
        return Ok(None);
    }
    choose(users, &folder::beside(fleet))
}

fn choose(users: Users, others: &[FleetSpec]) -> Result<Option<u32>, UsersError> {
    let in_the_way = |base: u32| {
        others.iter().find_map(|other| {
            let taken = other.run_as_base?;
            (taken.abs_diff(base) < RANGE).then_some((other, taken))
        })
    };
    match users {
        Users::Own => Ok(None),
        Users::From(base) => match in_the_way(base) {
            None => Ok(Some(base)),
            Some((other, taken)) => Err(UsersError::Taken {
                base,
                fleet: other.name.clone(),
                taken,
            }),
        },
        Users::Apart => {
            // The last id is none (setresuid(2)).
            let mut bases = (FIRST..u32::MAX - RANGE).step_by(RANGE as usize);
            let free = bases.find(|base| in_the_way(*base).is_none());
            free.map(Some).ok_or(UsersError::None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::Folder;
    use super::super::folder::tests::{directories, spec};
    use super::*;

    fn fleets(bases: &[Option<u32>]) -> Vec<FleetSpec> {
        let fleets = bases.iter().enumerate().map(|(number, base)| FleetSpec {
            run_as_base: *base,
            ..spec(&format!("f{number}"), 0)
        });
        fleets.collect()
    }

    #[test]
    fn the_first_ids_are_chosen_that_no_other_fleet_has() {
        for (others, base) in [
            (&[][..], 2_000_000),
            (&[None], 2_000_000),
            (&[Some(2_000_000)], 2_100_000),
            (&[Some(2_100_000), None, Some(2_000_000)], 2_200_000),
            (&[Some(2_100_000)], 2_000_000),
            (&[Some(2_050_000)], 2_200_000),
            (&[Some(1_900_001)], 2_100_000),
            (&[Some(1_900_000), Some(u32::MAX - 100_001)], 2_000_000),
        ] {
            let chosen = choose(Users::Apart, &fleets(others)).unwrap();
            assert_eq!(chosen, Some(base), "{others:?}");
        }
    }

    #[test]
    fn ids_of_another_fleet_are_refused() {
        let others = fleets(&[None, Some(70_000)]);
        for base in [0, 1, 70_000, 169_999] {
            let error = choose(Users::From(base), &others).unwrap_err().to_string();
            assert!(
                error.contains("fleet f1") && error.contains("from 70000"),
                "{error}"
            );
        }
        for base in [170_000, 2_000_000] {
            assert_eq!(choose(Users::From(base), &others).unwrap(), Some(base));
        }
        assert_eq!(choose(Users::Own, &others).unwrap(), None);
    }

    #[test]
    fn fleets_are_looked_for_beside_the_new_one() {
        let (_temporary, directories) = directories();
        let one = Folder::create("one", &directories).unwrap();
        let taken = FleetSpec {
            run_as_base: Some(FIRST),
            ..spec("one", 0)
        };
        one.write_spec(&taken).unwrap();
        let two = one.path().with_file_name("two");
        assert_eq!(base(&two, Users::Apart).unwrap(), Some(FIRST + RANGE));
        assert!(base(&two, Users::From(FIRST)).is_err());
        // Its own ids are in nobody's way.
        assert_eq!(base(one.path(), Users::Apart).unwrap(), Some(FIRST));
    }
}
