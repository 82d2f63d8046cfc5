//! Ready kernels: recognizes a file given by `--kernel` by its headers.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::units::ByteSize;

/// Largest kernel file accepted, in bytes.
const SIZE_LIMIT: u64 = 512 << 20;
/// Largest note segment read, in bytes.
const NOTES_LIMIT: u64 = 64 << 10;
/// `EM_X86_64` of the System V ABI, AMD64 supplement.
const MACHINE_X86_64: u16 = 62;
const PT_NOTE: u32 = 4;
const PROGRAM_HEADER_SIZE: usize = 56;
/// `XEN_ELFNOTE_PHYS32_ENTRY`, the PVH entry point (Xen's `docs/misc/pvh.pandoc`).
const NOTE_PVH: u32 = 18;
/// Offsets of the boot protocol's fields (Linux `Documentation/arch/x86/boot.rst`).
const SETUP_SECTS: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const LOADFLAGS: usize = 0x211;
const XLOADFLAGS: usize = 0x236;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const BANNER: &[u8] = b"Linux version ";

/// The form of a kernel file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// An uncompressed ELF file with a PVH entry point.
    Elf,
    /// A compressed kernel with the Linux boot protocol's header.
    BzImage,
}

impl Format {
    /// The name that a kernel of this form goes by.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Elf => "vmlinux",
            Self::BzImage => "bzImage",
        }
    }
}

/// What a kernel file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prebuilt {
    /// Its form.
    pub format: Format,
    /// The version it carries, if it says.
    pub version: Option<String>,
    /// Least memory of a guest in which it can unpack itself; an ELF file is
    /// unpacked.
    pub memory: Option<ByteSize>,
}

/// Why a file is not taken for a kernel.
#[derive(Debug, thiserror::Error)]
pub enum PrebuiltError {
    #[error("cannot read the kernel {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is something else, or damaged.
    #[error("{} cannot be used as a kernel: {fault}", .path.display())]
    Unfit {
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a kernel file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text is its documentation")]
pub enum Fault {
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is empty")]
    Empty,
    #[error("it is larger than {} MiB", SIZE_LIMIT >> 20)]
    TooLarge,
    #[error("it is compressed by {0}: unpack it first")]
    Compressed(&'static str),
    #[error("it is {0}: give a vmlinux (ELF) or a bzImage for x86-64")]
    Other(&'static str),
    #[error("it is neither an ELF file nor a bzImage")]
    Unknown,
    #[error("it is truncated")]
    Truncated,
    #[error("it is not for x86-64")]
    OtherMachine,
    #[error("its ELF headers are malformed")]
    Malformed,
    #[error("it has no PVH entry point; build it with CONFIG_PVH=y, or give its bzImage")]
    NoPvh,
    #[error("it is an old zImage; build a bzImage")]
    ZImage,
}

/// Looks at the kernel at `path`.
pub(crate) fn inspect(path: &Path) -> Result<Prebuilt, PrebuiltError> {
    let read = || -> io::Result<Result<Prebuilt, Fault>> {
        // Looked at before it is opened: opening a FIFO waits for its writer.
        if !fs::metadata(path)?.is_file() {
            return Ok(Err(Fault::NotAFile));
        }
        let file = File::open(path)?;
        let mut head = Vec::new();
        (&file).take(4096).read_to_end(&mut head)?;
        let kernel = Image {
            file: &file,
            head: &head,
            size: file.metadata()?.len(),
        };
        kernel.inspect()
    };
    match read() {
        Ok(Ok(kernel)) => Ok(kernel),
        Ok(Err(fault)) => Err(PrebuiltError::Unfit {
            path: path.to_owned(),
            fault,
        }),
        Err(source) => Err(PrebuiltError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

struct Image<'a> {
    file: &'a File,
    head: &'a [u8],
    size: u64,
}

impl Image<'_> {
    fn inspect(&self) -> io::Result<Result<Prebuilt, Fault>> {
        Ok(match self.head {
            [] => Err(Fault::Empty),
            _ if self.size > SIZE_LIMIT => Err(Fault::TooLarge),
            [0x7f, b'E', b'L', b'F', ..] => match self.check_elf()? {
                Ok(()) => Ok(Prebuilt {
                    format: Format::Elf,
                    version: self.banner()?,
                    memory: None,
                }),
                Err(fault) => Err(fault),
            },
            head if head.get(MAGIC..MAGIC + 4) == Some(b"HdrS") => {
                self.check_bzimage().map(|()| Prebuilt {
                    format: Format::BzImage,
                    version: self.header_version(),
                    memory: self.memory_to_unpack(),
                })
            }
            head => Err(other(head)),
        })
    }

    fn check_elf(&self) -> io::Result<Result<(), Fault>> {
        let Some(header) = self.head.get(..64) else {
            return Ok(Err(Fault::Truncated));
        };
        let is_64_bit_little_endian = header[4] == 2 && header[5] == 1;
        if !is_64_bit_little_endian || u16_at(header, 18) != Some(MACHINE_X86_64) {
            return Ok(Err(Fault::OtherMachine));
        }
        let (Some(table), Some(size), Some(count)) =
            (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56))
        else {
            return Ok(Err(Fault::Truncated));
        };
        if usize::from(size) != PROGRAM_HEADER_SIZE || count == 0 || count == u16::MAX {
            return Ok(Err(Fault::Malformed));
        }
        let Some(headers) = self.bytes(table, u64::from(size) * u64::from(count))? else {
            return Ok(Err(Fault::Truncated));
        };
        let mut has_pvh = false;
        for header in headers.chunks_exact(PROGRAM_HEADER_SIZE) {
            let (Some(kind), Some(offset), Some(size)) =
                (u32_at(header, 0), u64_at(header, 8), u64_at(header, 32))
            else {
                return Ok(Err(Fault::Malformed));
            };
            if offset.checked_add(size).is_none_or(|end| end > self.size) {
                return Ok(Err(Fault::Truncated));
            }
            if kind == PT_NOTE {
                let notes = self.bytes(offset, size.min(NOTES_LIMIT))?;
                has_pvh |= notes.is_some_and(|notes| has_pvh_note(&notes));
            }
        }
        Ok(if has_pvh { Ok(()) } else { Err(Fault::NoPvh) })
    }

    fn check_bzimage(&self) -> Result<(), Fault> {
        let field = |offset| u16_at(self.head, offset).ok_or(Fault::Truncated);
        if field(BOOT_FLAG)? != 0xaa55 {
            return Err(Fault::Unknown);
        }
        if self.head.get(LOADFLAGS).ok_or(Fault::Truncated)? & 1 == 0 {
            return Err(Fault::ZImage);
        }
        // The flag for a 64-bit entry came with version 2.12 of the protocol.
        if field(PROTOCOL)? < 0x20c || field(XLOADFLAGS)? & 1 == 0 {
            return Err(Fault::OtherMachine);
        }
        let setup = u64::from(self.setup_size());
        let system = u32_at(self.head, SYSSIZE).ok_or(Fault::Truncated)?;
        if setup + u64::from(system) * 16 > self.size {
            return Err(Fault::Truncated);
        }
        Ok(())
    }

    /// Bytes before the protected-mode kernel; 0 sectors mean 4.
    fn setup_size(&self) -> u32 {
        let sectors = self.head.get(SETUP_SECTS).copied().unwrap_or(0);
        (u32::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512
    }

    /// The end of what the kernel uses before it reads its memory map, in whole
    /// MiB.
    fn memory_to_unpack(&self) -> Option<ByteSize> {
        let size = u64::from(u32_at(self.head, INIT_SIZE)?);
        let end = u64_at(self.head, PREF_ADDRESS)?.checked_add(size)?;
        ByteSize::new(end.checked_next_multiple_of(1 << 20)?)
    }

    /// The version string that the header points to.
    fn header_version(&self) -> Option<String> {
        let pointer = u16_at(self.head, KERNEL_VERSION).filter(|pointer| *pointer != 0)?;
        let offset = u32::from(pointer) + 0x200;
        if offset >= self.setup_size() {
            return None;
        }
        let text = self.bytes(offset.into(), 256).ok()??;
        first_word(&text)
    }

    /// The version in the banner that the kernel prints first.
    fn banner(&self) -> io::Result<Option<String>> {
        const PIECE: usize = 1 << 20;
        const OVERLAP: usize = 256;
        let mut file = self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut window = Vec::new();
        loop {
            let kept = window.len().min(OVERLAP);
            window.drain(..window.len() - kept);
            if file.take(PIECE as u64).read_to_end(&mut window)? == 0 {
                return Ok(None);
            }
            // `Linux version %s` is in there as well, for /proc/version.
            let found = window.windows(BANNER.len() + 1).position(|bytes| {
                bytes.starts_with(BANNER) && bytes[BANNER.len()].is_ascii_digit()
            });
            if let Some(start) = found
                && let Some(version) = first_word(&window[start + BANNER.len()..])
            {
                return Ok(Some(version));
            }
        }
    }

    /// That many bytes from `offset` on, `None` if the file ends before.
    fn bytes(&self, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
        let is_inside = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.size);
        let Some(length) = usize::try_from(length).ok().filter(|_| is_inside) else {
            return Ok(None);
        };
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }
}

/// What a file is that is neither ELF nor bzImage, by how it begins.
fn other(head: &[u8]) -> Fault {
    /// The tools that Linux's `scripts/Makefile.lib` compresses kernels by, and bzip2.
    const COMPRESSED: [(&[u8], &str); 8] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"BZh", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x89LZO\0\r\n\x1a\n", "lzop"),
        (b"\x5d\0\0", "lzma"),
    ];
    /// By an offset and what stands there (Linux's `arch/*/boot`, `image.h` of
    /// arm64 and RISC-V, U-Boot's `image.h`).
    const OTHERS: [(usize, &[u8], &str); 5] = [
        (4, b"zimg", "an EFI zboot image"),
        (0x38, b"ARM\x64", "an Image for arm64"),
        (0x38, b"RSC\x05", "an Image for RISC-V"),
        (0, b"\x27\x05\x19\x56", "a uImage of U-Boot"),
        (0, b"\xd0\x0d\xfe\xed", "a FIT image of U-Boot"),
    ];
    let is_at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if let Some((_, tool)) = COMPRESSED.iter().find(|(magic, _)| is_at(0, magic)) {
        return Fault::Compressed(tool);
    }
    if let Some((.., name)) = OTHERS.iter().find(|(at, magic, _)| is_at(*at, magic)) {
        return Fault::Other(name);
    }
    if !head.starts_with(b"MZ") {
        return Fault::Unknown;
    }
    // The name of a section of systemd-stub(7), in the PE header.
    if head.windows(7).any(|bytes| bytes == b".linux\0") {
        Fault::Other("a unified kernel image (UKI), which holds a kernel in its section .linux")
    } else {
        Fault::Other("an EFI program")
    }
}

/// The text before the first space, if it is short and plain enough for a version.
fn first_word(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .take(65)
        .position(|byte| matches!(byte, b' ' | 0 | b'\n'))?;
    let word = std::str::from_utf8(&bytes[..end]).ok()?;
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic());
    is_plain.then(|| word.to_owned())
}

/// Whether a note segment holds the PVH note: name size, size and type in 4 bytes
/// each, then name and content, both padded to 4 bytes.
fn has_pvh_note(mut notes: &[u8]) -> bool {
    while let (Some(name_size), Some(size), Some(kind)) =
        (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8))
    {
        let padded = |size: u32| usize::try_from(size).ok()?.checked_next_multiple_of(4);
        let (Some(name_padded), Some(padded)) = (padded(name_size), padded(size)) else {
            return false;
        };
        let Some(rest) = notes.get(12..) else {
            return false;
        };
        if kind == NOTE_PVH && rest.starts_with(b"Xen\0") && name_size == 4 {
            return size >= 4;
        }
        let next = name_padded
            .checked_add(padded)
            .and_then(|skip| rest.get(skip..));
        match next {
            Some(next) => notes = next,
            None => return false,
        }
    }
    false
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
