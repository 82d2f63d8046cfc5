//! Chooses how guests come up, and has the template that they are restored from.

use super::error::LaunchError;
use super::options::LaunchOptions;
use crate::artifact::Manifest;
use crate::artifact::opened::Artifacts;
use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::template::Template;
use crate::trial::template::{TemplateError, template};
use crate::units::counted;
use crate::vmm::qemu::Emulator;
use crate::vmm::{Sharing, StartMethod};

/// From so many guests on, a template and as many clones take less CPU time and wall
/// time than boots (docs/density.md).
const CLONES_PAY: u32 = 4;

/// The template that the guests of a launch are restored from; `None` if they boot,
/// and then it says why.
pub(super) fn chosen(
    options: &LaunchOptions,
    artifacts: &Artifacts,
    qemu: &Emulator,
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Option<Template>, LaunchError> {
    let asked_for = match options.start {
        Some(StartMethod::Boot) => return Ok(None),
        Some(StartMethod::Clone) => true,
        None => false,
    };
    let sharing = options.machine.sharing;
    if !asked_for && let Some(why) = why_boot(options.guests.count(), sharing, &artifacts.manifest)
    {
        tracing::info!("guests boot: {why}");
        return Ok(None);
    }
    let machine = (options.machine).machine(artifacts.manifest.recipe.memory);
    match template(artifacts, machine, qemu, directories, interrupt) {
        Ok(template) => {
            tracing::info!("guests are restored from a template (--start boot has each boot)");
            Ok(Some(template))
        }
        Err(TemplateError::Interrupted) => Err(LaunchError::Interrupted),
        Err(error) if asked_for => Err(error.into()),
        Err(error) => {
            tracing::warn!("guests boot, because there is no template: {error}");
            Ok(None)
        }
    }
}

/// Why guests had better boot.
fn why_boot(count: u32, sharing: Sharing, manifest: &Manifest) -> Option<String> {
    if sharing == Sharing::None {
        return Some("with --sharing none they have no page in common".to_owned());
    }
    if count < CLONES_PAY {
        return Some(format!(
            "a template pays from {} on (--start clone takes one for fewer)",
            counted(CLONES_PAY.into(), "guest")
        ));
    }
    // Another kernel may lack what a clone reads its identity by.
    manifest.kernel.config_digest.is_none().then(|| {
        "their kernel was not built by imgbuild, and may lack what clones need \
         (--start clone tries it)"
            .to_owned()
    })
}
