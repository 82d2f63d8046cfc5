//! Makes a `.config` from fragments, in which every setting of theirs holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use super::fragment::{self, Fragment, FragmentError, Place, Setting, Value};
use super::kconfig;
use super::make::Make;
use crate::process::ProcessError;
use crate::units::Version;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The fragments are wrong in themselves.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// This kernel knows nothing of some symbols.
    #[error(
        "this kernel source does not define these symbols; {}:{}",
        remedy(*.version), Lines(.symbols)
    )]
    Unknown {
        symbols: Vec<Unknown>,
        /// Of the source, where it says one.
        version: Option<Version>,
    },
    /// The kernel's own rules overruled some settings.
    #[error(
        "the kernel's rules overrule these settings; add what they depend on, or drop the lines:{}",
        Lines(.0)
    )]
    Overruled(Vec<Overruled>),
    /// The source's Kconfig files, or the build folder, cannot be used.
    #[error("cannot configure the kernel at {}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Make(#[from] ProcessError),
}

/// A symbol that the source does not define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// Where it was asked for.
    pub place: Place,
    /// The symbol.
    pub symbol: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: CONFIG_{}", self.place, self.symbol)?;
        match &self.nearest {
            Some(name) => write!(f, " (CONFIG_{name}?)"),
            None => Ok(()),
        }
    }
}

/// A setting that did not survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overruled {
    /// What was asked for.
    pub wanted: Setting,
    /// What the symbol became.
    pub got: Value,
}

impl fmt::Display for Overruled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting {
            symbol,
            value,
            place,
        } = &self.wanted;
        write!(
            f,
            "{place}: CONFIG_{symbol}: wanted {value}, got {}",
            self.got
        )
    }
}

/// The first kernel with all that imgbuild's own fragments set: `CONFIG_SLUB_TINY`
/// came with it.
const OLDEST: Version = Version(6, 2);

/// The version that the `Makefile` of a kernel's source says.
fn version_of(source: &Path) -> Option<Version> {
    let makefile = fs::read_to_string(source.join("Makefile")).ok()?;
    let number = |name| {
        let mut lines = makefile.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('='));
        value?.trim().parse().ok()
    };
    Some(Version(number("VERSION")?, number("PATCHLEVEL")?))
}

fn remedy(version: Option<Version>) -> String {
    match version {
        Some(version) if version < OLDEST => format!(
            "it is Linux {version}, and imgbuild's fragments need Linux {OLDEST} or later: give a \
             newer source with --kernel-source, or fragments for this one with --kernel-config"
        ),
        _ => "correct or drop the lines".to_owned(),
    }
}

/// A list, each item on a line of its own.
struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|item| write!(f, "\n  {item}"))
    }
}

/// Makes `.config` in the build folder from `tinyconfig` and `settings`, and
/// returns it.
pub(crate) fn configure(make: &Make<'_>, settings: &[Setting]) -> Result<String, ConfigError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| ConfigError::Io { path, source }
    };
    let symbols = kconfig::symbols(make.source).map_err(failed(make.source))?;
    check_defined(settings, &symbols, || version_of(make.source))?;
    make.run(["tinyconfig"], |_| {})?;
    let path = make.output.join(".config");
    append(&path, settings).map_err(failed(&path))?;
    make.run(["olddefconfig"], |_| {})?;
    let text = fs::read_to_string(&path).map_err(failed(&path))?;
    check_kept(settings, &text)?;
    Ok(text)
}

/// The settings one to a line: what of the fragments decides the kernel.
pub(super) fn normalised(settings: &[Setting]) -> String {
    settings.iter().fold(String::new(), |text, setting| {
        text + &setting.to_string() + "\n"
    })
}

fn append(path: &Path, settings: &[Setting]) -> io::Result<()> {
    let mut file = fs::File::options().append(true).open(path)?;
    file.write_all(normalised(settings).as_bytes())
}

fn check_defined(
    settings: &[Setting],
    symbols: &BTreeSet<String>,
    version: impl FnOnce() -> Option<Version>,
) -> Result<(), ConfigError> {
    let unknown: Vec<_> = settings
        .iter()
        .filter(|setting| !symbols.contains(&setting.symbol))
        .map(|setting| Unknown {
            place: setting.place.clone(),
            symbol: setting.symbol.clone(),
            nearest: kconfig::nearest(&setting.symbol, symbols).map(str::to_owned),
        })
        .collect();
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(ConfigError::Unknown {
            symbols: unknown,
            version: version(),
        })
    }
}

fn check_kept(settings: &[Setting], config: &str) -> Result<(), ConfigError> {
    let fragment = Fragment {
        name: ".config".to_owned(),
        text: config.to_owned(),
    };
    let final_values: BTreeMap<_, _> = fragment::parse(&fragment)?
        .into_iter()
        .map(|setting| (setting.symbol, setting.value))
        .collect();
    let overruled: Vec<_> = settings
        .iter()
        .filter_map(|wanted| {
            let got = final_values.get(&wanted.symbol).unwrap_or(&Value::No);
            (*got != wanted.value).then(|| Overruled {
                wanted: wanted.clone(),
                got: got.clone(),
            })
        })
        .collect();
    if overruled.is_empty() {
        Ok(())
    } else {
        Err(ConfigError::Overruled(overruled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Vec<Setting> {
        let fragment = Fragment {
            name: "one.config".to_owned(),
            text: text.to_owned(),
        };
        fragment::settings(&[fragment]).unwrap()
    }

    #[test]
    fn every_overruled_setting_is_listed_with_its_place() {
        let wanted = settings("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=3\n");
        let config = "# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=4\n";
        let text = check_kept(&wanted, config).unwrap_err().to_string();
        for line in [
            "one.config:1: CONFIG_A: wanted y, got n",
            "one.config:2: CONFIG_B: wanted y, got n",
            "one.config:3: CONFIG_C: wanted n, got y",
            "one.config:4: CONFIG_D: wanted 3, got 4",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn silence_is_as_good_as_not_set() {
        let wanted = settings("# CONFIG_A is not set\nCONFIG_B=\"x\"\n");
        check_kept(&wanted, "CONFIG_B=\"x\"\n").unwrap();
    }

    #[test]
    fn a_source_that_is_too_old_is_known_by_its_version() {
        let source = tempfile::tempdir().unwrap();
        let told = |makefile: &str| {
            fs::write(source.path().join("Makefile"), makefile).unwrap();
            let version = || version_of(source.path());
            let wanted = settings("CONFIG_SLUB_TINY=y\n");
            let error = check_defined(&wanted, &BTreeSet::new(), version).unwrap_err();
            error.to_string()
        };
        let old = told("# SPDX\nVERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 170\n");
        for part in [
            "Linux 6.1",
            "Linux 6.2 or later",
            "--kernel-source",
            "CONFIG_SLUB_TINY",
        ] {
            assert!(old.contains(part), "{old}");
        }
        for other in [
            "VERSION = 6\nPATCHLEVEL = 12\n",
            "VERSION = 6\n",
            "VERSION = x\nPATCHLEVEL = 1\n",
            "",
        ] {
            assert!(told(other).contains("correct or drop the lines"), "{other}");
        }
    }

    #[test]
    fn an_undefined_symbol_is_named_with_a_suggestion() {
        let symbols = ["PVH".to_owned()].into();
        let text = check_defined(&settings("CONFIG_PVH=y\nCONFIG_PHV=y\n"), &symbols, || None)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("one.config:2: CONFIG_PHV (CONFIG_PVH?)"),
            "{text}"
        );
    }
}
