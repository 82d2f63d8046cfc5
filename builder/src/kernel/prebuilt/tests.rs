use std::fs;
use std::io::Write as _;

use super::*;

fn note(name: [u8; 4], kind: u32) -> Vec<u8> {
    [
        &4u32.to_le_bytes()[..],
        &8u32.to_le_bytes(),
        &kind.to_le_bytes(),
        &name,
        &[0; 8],
    ]
    .concat()
}

/// An ELF file of one note segment, followed by a banner.
fn elf(notes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64 + PROGRAM_HEADER_SIZE];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
    bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
    bytes[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
    bytes.extend_from_slice(notes);
    bytes.extend_from_slice(b"Linux version %s\0Linux version 6.12.57 (imgbuild@imgbuild) ");
    bytes
}

fn good_elf() -> Vec<u8> {
    elf(&[note(*b"GNU\0", 3), note(*b"Xen\0", NOTE_PVH)].concat())
}

fn bzimage() -> Vec<u8> {
    let mut bytes = vec![0; 5 * 512 + 160];
    bytes[SYSSIZE] = 10;
    bytes[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&[0x55, 0xaa]);
    bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
    bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x20fu16.to_le_bytes());
    bytes[KERNEL_VERSION..KERNEL_VERSION + 2].copy_from_slice(&0x100u16.to_le_bytes());
    bytes[LOADFLAGS] = 1;
    bytes[XLOADFLAGS] = 1;
    bytes[0x300..0x310].copy_from_slice(b"6.1.0-44-amd64 (");
    bytes
}

fn look(bytes: &[u8]) -> Result<Prebuilt, Fault> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    match inspect(file.path()) {
        Ok(kernel) => Ok(kernel),
        Err(PrebuiltError::Unfit { fault, .. }) => Err(fault),
        Err(error) => panic!("{error}"),
    }
}

fn with(mut bytes: Vec<u8>, offset: usize, change: &[u8]) -> Vec<u8> {
    bytes[offset..offset + change.len()].copy_from_slice(change);
    bytes
}

#[test]
fn knows_an_elf_kernel_and_its_version() {
    let kernel = look(&good_elf()).unwrap();
    assert_eq!(kernel.format, Format::Elf);
    assert_eq!(kernel.version.as_deref(), Some("6.12.57"));
}

#[test]
fn tells_how_much_memory_a_bzimage_unpacks_itself_in() {
    let placed = with(bzimage(), PREF_ADDRESS, &0x100_0000u64.to_le_bytes());
    let kernel = look(&with(placed, INIT_SIZE, &0x10_0001u32.to_le_bytes())).unwrap();
    assert_eq!(kernel.memory, ByteSize::new(18 << 20));
    let endless = with(bzimage(), PREF_ADDRESS, &[0xff; 12]);
    assert_eq!(look(&endless).unwrap().memory, None);
}

#[test]
fn finds_a_banner_across_pieces_of_the_file() {
    let mut bytes = elf(&note(*b"Xen\0", NOTE_PVH));
    bytes.truncate(120 + 24);
    bytes.resize((1 << 20) - 18, 0);
    bytes.extend_from_slice(b"Linux version 6.12.57-test (");
    assert_eq!(
        look(&bytes).unwrap().version.as_deref(),
        Some("6.12.57-test")
    );
}

#[test]
fn knows_a_bzimage_and_its_version() {
    let kernel = look(&bzimage()).unwrap();
    assert_eq!(kernel.format, Format::BzImage);
    assert_eq!(kernel.version.as_deref(), Some("6.1.0-44-amd64"));
}

#[test]
fn says_what_is_wrong_with_an_elf_file() {
    let cases = [
        (
            with(good_elf(), 18, &183u16.to_le_bytes()),
            Fault::OtherMachine,
        ),
        (with(good_elf(), 4, &[1]), Fault::OtherMachine),
        (with(good_elf(), 54, &[0, 0]), Fault::Malformed),
        (with(good_elf(), 56, &[0, 0]), Fault::Malformed),
        (with(good_elf(), 56, &[0xfe, 0xff]), Fault::Truncated),
        (
            with(good_elf(), 32, &u64::MAX.to_le_bytes()),
            Fault::Truncated,
        ),
        (
            with(good_elf(), 72, &u64::MAX.to_le_bytes()),
            Fault::Truncated,
        ),
        (
            with(good_elf(), 96, &u64::MAX.to_le_bytes()),
            Fault::Truncated,
        ),
        (with(good_elf(), 120, &u32::MAX.to_le_bytes()), Fault::NoPvh),
        (with(good_elf(), 124, &u32::MAX.to_le_bytes()), Fault::NoPvh),
        (good_elf()[..40].to_vec(), Fault::Truncated),
        (good_elf()[..130].to_vec(), Fault::Truncated),
    ];
    for (number, (bytes, fault)) in cases.into_iter().enumerate() {
        assert_eq!(look(&bytes), Err(fault), "case {number}");
    }
    let without = elf(&note(*b"Xen\0", 1));
    assert_eq!(look(&without), Err(Fault::NoPvh));
}

#[test]
fn says_what_is_wrong_with_a_bzimage() {
    let cases = [
        (with(bzimage(), BOOT_FLAG, &[0, 0]), Fault::Unknown),
        (with(bzimage(), LOADFLAGS, &[0]), Fault::ZImage),
        (with(bzimage(), XLOADFLAGS, &[0]), Fault::OtherMachine),
        (with(bzimage(), PROTOCOL, &[0, 2]), Fault::OtherMachine),
        (with(bzimage(), SYSSIZE, &[0xff; 4]), Fault::Truncated),
        (bzimage()[..0x210].to_vec(), Fault::Truncated),
        (bzimage()[..0x220].to_vec(), Fault::Truncated),
        (bzimage()[..2600].to_vec(), Fault::Truncated),
    ];
    for (number, (bytes, fault)) in cases.into_iter().enumerate() {
        assert_eq!(look(&bytes), Err(fault), "case {number}");
    }
    let lost = with(bzimage(), KERNEL_VERSION, &[0xff, 0xff]);
    assert_eq!(look(&lost).unwrap().version, None);
}

#[test]
fn says_what_is_no_kernel_at_all() {
    assert_eq!(look(b""), Err(Fault::Empty));
    assert_eq!(look(b"text"), Err(Fault::Unknown));
    assert_eq!(look(b"MZ"), Err(Fault::Other("an EFI program")));
    for (at, magic, name) in [
        (0, &b"\x1f\x8b\x08"[..], "compressed by gzip"),
        (0, b"\xfd7zXZ\0", "compressed by xz"),
        (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (0, b"BZh9", "compressed by bzip2"),
        (0, b"\x02\x21\x4c\x18", "compressed by lz4"),
        (0, b"\x04\x22\x4d\x18", "compressed by lz4"),
        (0, b"\x5d\0\0\x80", "compressed by lzma"),
        (0, b"\x89LZO\0\r\n\x1a\n", "compressed by lzop"),
        (4, b"zimg", "an EFI zboot image"),
        (0x38, b"ARM\x64", "an Image for arm64"),
        (0x38, b"RSC\x05", "an Image for RISC-V"),
        (0, b"\x27\x05\x19\x56", "a uImage"),
        (0, b"\xd0\x0d\xfe\xed", "a FIT image"),
        (0x178, b".linux\0\0", "a unified kernel image (UKI)"),
    ] {
        let mut file = vec![0; 0x300];
        file[..2].copy_from_slice(b"MZ");
        file[at..at + magic.len()].copy_from_slice(magic);
        let fault = look(&file).unwrap_err().to_string();
        assert!(fault.contains(name), "{name}: {fault}");
        let _ = look(&file[..at + magic.len() - 1]);
    }
    let folder = tempfile::tempdir().unwrap();
    let error = inspect(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let error = inspect(&folder.path().join("none")).unwrap_err();
    assert!(matches!(error, PrebuiltError::Read { .. }), "{error}");
    let huge = File::create(folder.path().join("huge")).unwrap();
    (&huge).write_all(b"\x7fELF").unwrap();
    huge.set_len(SIZE_LIMIT + 1).unwrap();
    let error = inspect(&folder.path().join("huge")).unwrap_err();
    assert!(error.to_string().contains("512 MiB"), "{error}");
}

#[test]
fn no_prefix_of_a_kernel_is_read_past_its_end() {
    for whole in [good_elf(), bzimage()] {
        for length in 0..whole.len() {
            let _ = look(&whole[..length]);
        }
    }
}
