use super::*;
use std::format;
use std::string::ToString;

fn sample() -> Identity {
    Identity {
        id: "g00042".parse().unwrap(),
        mac: [0x52, 0x54, 0, 0, 0, 42],
        address: Some(Address {
            ip: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 2)),
        }),
        login_deadline_ms: 10_000,
        authorized_key: Some([0xab; 32]),
        host_key_seed: [0xcd; 32],
        entropy: [0xef; 32],
    }
}

/// The sample's blob with some bytes changed and the checksum made to match.
fn forged(at: usize, bytes: &[u8]) -> Zeroizing<[u8; LENGTH]> {
    let mut blob = sample().encode();
    blob[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = Sha256::digest(&blob[..AT_CHECKSUM]);
    blob[AT_CHECKSUM..].copy_from_slice(&checksum);
    blob
}

#[test]
fn identity_survives_the_round_trip() {
    let full = sample();
    assert_eq!(Identity::decode(&full.encode()[..]), Ok(full.clone()));

    let mut bare = full;
    bare.address = None;
    bare.authorized_key = None;
    bare.mac = [0; 6];
    assert_eq!(Identity::decode(&bare.encode()[..]), Ok(bare));
}

#[test]
fn layout_is_as_documented() {
    let blob = sample().encode();
    assert_eq!(&blob[..12], b"TTYIDENT\x01\x00\x00\x01");
    assert_eq!(&blob[12..28], b"g00042\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(blob[28..34], [0x52, 0x54, 0, 0, 0, 42]);
    assert_eq!(blob[34..44], [10, 0, 2, 15, 24, 0, 10, 0, 2, 2]);
    assert_eq!(blob[44..48], 10_000_u32.to_le_bytes());
    assert_eq!(blob[48..80], [0xab; 32]);
    assert_eq!(blob[80..112], [0xcd; 32]);
    assert_eq!(blob[112..144], [0xef; 32]);
    assert_eq!(blob[144..224], [0; 80]);
}

#[test]
fn truncated_at_any_length_is_rejected() {
    let blob = sample().encode();
    for length in 0..LENGTH {
        assert_eq!(
            Identity::decode(&blob[..length]),
            Err(DecodeError::BadLength(length))
        );
    }
    let longer = [&blob[..], &[0]].concat();
    assert_eq!(
        Identity::decode(&longer),
        Err(DecodeError::BadLength(LENGTH + 1))
    );
}

#[test]
fn any_changed_byte_is_noticed() {
    for at in 0..LENGTH {
        for flip in [0x01, 0x80, 0xff] {
            let mut blob = sample().encode();
            blob[at] ^= flip;
            let error = Identity::decode(&blob[..]).unwrap_err();
            match at {
                0..8 => assert_eq!(error, DecodeError::BadMagic),
                8..10 => assert!(matches!(error, DecodeError::UnsupportedVersion(_))),
                _ => assert_eq!(error, DecodeError::BadChecksum),
            }
        }
    }
}

#[test]
fn newer_version_is_unsupported_whatever_its_length() {
    let blob = forged(8, &[2, 0]);
    let longer = [&blob[..], &[7; 300]].concat();
    for length in 10..longer.len() {
        let error = Identity::decode(&longer[..length]).unwrap_err();
        assert_eq!(error, DecodeError::UnsupportedVersion(2));
        assert_eq!(IdentityState::from(error), IdentityState::Unsupported);
    }
}

#[test]
fn bad_fields_are_named() {
    for (at, bytes, field) in [
        (10, &[1, 1][..], "length"),
        (12, b"\0", "id"),
        (12, b"G", "id"),
        (13, b"\0", "id"),
        (28, &[1], "MAC address"),
        (34, &[0; 4], "address"),
        (38, &[33], "prefix length"),
        (39, &[1], "reserved bytes"),
        (223, &[1], "reserved bytes"),
    ] {
        let error = Identity::decode(&forged(at, bytes)[..]);
        assert_eq!(error, Err(DecodeError::BadField(field)), "{at} {bytes:?}");
    }
}

#[test]
fn debug_output_holds_no_secret() {
    let text = format!("{:?}", sample());
    assert!(text.contains("g00042"));
    assert!(!text.contains("205") && !text.contains("239"), "{text}");
    assert!(
        !text.contains("seed") && !text.contains("entropy"),
        "{text}"
    );
}

#[test]
fn id_is_1_to_16_plain_characters() {
    for good in ["g", "g00000", "a-b-c", "0123456789abcdef"] {
        assert_eq!(good.parse::<Id>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "0123456789abcdefg",
        "G1",
        "a b",
        "a\0b",
        "a\0",
        "ä",
        "a.b",
        "a/b",
    ] {
        assert_eq!(bad.parse::<Id>(), Err(NotAnId), "{bad:?}");
    }
    assert_eq!(format!("{:>8}|", "g1".parse::<Id>().unwrap()), "      g1|");
}
