//! Reads what builds and kernels have in common: the recipe and SOURCE_DATE_EPOCH.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::recipe::{Recipe, built_in, is_name};

/// A recipe by name or path, and the folder that its paths are relative to.
pub(super) fn find_recipe(named: &Path) -> Result<(Recipe, PathBuf), Failure> {
    match named.to_str() {
        Some(name) if is_name(name) => Ok((built_in::recipe(name)?, PathBuf::from("."))),
        _ => {
            let folder = named.parent().unwrap_or(Path::new("."));
            Ok((Recipe::load(named)?, folder.to_path_buf()))
        }
    }
}

pub(super) fn source_date_epoch() -> Result<u32, Failure> {
    let name = "SOURCE_DATE_EPOCH";
    match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => Ok(0),
        Ok(value) => value.parse().map_err(|_| {
            Failure::usage(format!(
                "{name} = {value:?}: must be seconds since 1970, below 2^32"
            ))
        }),
        Err(error) => Err(Failure::usage(format!("{name}: {error}"))),
    }
}
