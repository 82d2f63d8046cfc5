//! Kernel configuration fragments: their settings, each with its place.

use std::collections::BTreeMap;
use std::fmt;

/// A named piece of kernel configuration, in the syntax of a `.config` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// What errors call it: a file name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The value of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Yes,
    Module,
    /// Left out, which a `.config` may also say by silence.
    No,
    /// A number, or a string with its quotes.
    Literal(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "y",
            Self::Module => "m",
            Self::No => "n",
            Self::Literal(text) => text,
        })
    }
}

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The fragment's name.
    pub fragment: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.fragment, self.line)
    }
}

/// One symbol and what it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The symbol, without `CONFIG_`.
    pub symbol: String,
    /// Its value.
    pub value: Value,
    /// Where it was asked for.
    pub place: Place,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::No => write!(f, "# CONFIG_{} is not set", self.symbol),
            value => write!(f, "CONFIG_{}={value}", self.symbol),
        }
    }
}

/// Why fragments make no sense together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// A line is neither a setting nor a comment.
    #[error(
        "{place}: `{line}` is not understood: write `CONFIG_NAME=value` or \
         `# CONFIG_NAME is not set`"
    )]
    Syntax { place: Place, line: String },
    /// Two settings of one symbol disagree.
    #[error(
        "CONFIG_{} is set twice: {} says {}, {} says {}; remove one",
        .first.symbol, .first.place, .first.value, .second.place, .second.value
    )]
    Conflict {
        /// The one that was there.
        first: Box<Setting>,
        /// The one that came later.
        second: Box<Setting>,
    },
}

/// The settings of all fragments, in order; each symbol once.
pub(super) fn settings(fragments: &[Fragment]) -> Result<Vec<Setting>, FragmentError> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut seen = BTreeMap::new();
    for fragment in fragments {
        for setting in parse(fragment)? {
            match seen
                .get(&setting.symbol)
                .map(|index: &usize| &settings[*index])
            {
                None => {
                    seen.insert(setting.symbol.clone(), settings.len());
                    settings.push(setting);
                }
                Some(first) if first.value == setting.value => {}
                Some(first) => {
                    return Err(FragmentError::Conflict {
                        first: Box::new(first.clone()),
                        second: Box::new(setting),
                    });
                }
            }
        }
    }
    Ok(settings)
}

/// The settings of one fragment, or of a whole `.config`.
pub(super) fn parse(fragment: &Fragment) -> Result<Vec<Setting>, FragmentError> {
    let lines = fragment.text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let place = Place {
                fragment: fragment.name.clone(),
                line: index + 1,
            };
            parse_line(line.trim(), place).transpose()
        })
        .collect()
}

fn parse_line(line: &str, place: Place) -> Result<Option<Setting>, FragmentError> {
    let found = match line.strip_prefix('#') {
        Some(comment) => match comment.trim().strip_suffix(" is not set") {
            Some(name) if name.starts_with("CONFIG_") => Some((name, Value::No)),
            _ => return Ok(None),
        },
        None if line.is_empty() => return Ok(None),
        None => line
            .split_once('=')
            .and_then(|(name, value)| Some((name, parse_value(value)?))),
    };
    found
        .and_then(|(name, value)| Some((name.strip_prefix("CONFIG_")?, value)))
        .filter(|(symbol, _)| is_symbol(symbol))
        .map(|(symbol, value)| {
            Some(Setting {
                symbol: symbol.to_owned(),
                value,
                place: place.clone(),
            })
        })
        .ok_or_else(|| FragmentError::Syntax {
            place,
            line: line.to_owned(),
        })
}

fn parse_value(text: &str) -> Option<Value> {
    let is_string = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
    match text {
        "y" => Some(Value::Yes),
        "m" => Some(Value::Module),
        "n" => Some(Value::No),
        _ if is_string || is_number(text) => Some(Value::Literal(text.to_owned())),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let decimal = text.strip_prefix('-').unwrap_or(text);
    match text.strip_prefix("0x") {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !decimal.is_empty() && decimal.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn is_symbol(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(name: &str, text: &str) -> Fragment {
        Fragment {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    fn shown(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_every_kind_of_value_and_skips_comments() {
        let text = "# Why: CONFIG_A=y is good.\n\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=n\n\
                    # CONFIG_D is not set\nCONFIG_E=0x200000\nCONFIG_F=-1\nCONFIG_G=\"a = b\"\n";
        let settings = settings(&[fragment("one", text)]).unwrap();
        assert_eq!(
            shown(&settings),
            [
                "CONFIG_A=y",
                "CONFIG_B=m",
                "# CONFIG_C is not set",
                "# CONFIG_D is not set",
                "CONFIG_E=0x200000",
                "CONFIG_F=-1",
                "CONFIG_G=\"a = b\"",
            ]
        );
        assert_eq!(settings[0].place.to_string(), "one:3");
    }

    #[test]
    fn a_malformed_line_is_named_with_its_place() {
        for line in [
            "CONFIG_A",
            "A=y",
            "CONFIG_=y",
            "CONFIG_A=yes",
            "CONFIG_A=\"",
            "CONFIG_A =y",
            "CONFIG_A=0x",
            "CONFIG_A=-",
            "# CONFIG_A-B is not set",
        ] {
            let error = settings(&[fragment("one", &format!("\n{line}\n"))]).unwrap_err();
            assert!(error.to_string().starts_with("one:2: "), "{line}: {error}");
        }
    }

    #[test]
    fn a_conflict_names_both_places() {
        let first = fragment("one", "CONFIG_A=y\n");
        let second = fragment("two", "\n# CONFIG_A is not set\n");
        let text = settings(&[first.clone(), second]).unwrap_err().to_string();
        assert!(text.contains("one:1 says y, two:2 says n"), "{text}");
        let agreed = settings(&[first.clone(), first]).unwrap();
        assert_eq!(agreed.len(), 1);
    }
}
