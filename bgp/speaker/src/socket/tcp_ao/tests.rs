use std::{
    collections::BTreeMap,
    io::Write as _,
    mem::{offset_of, size_of},
    process::{Command, Stdio},
};

use super::*;

/// Every field of the structures: the kernel's name, where it is here, and where include/uapi/linux/tcp.h puts it,
/// counted by hand from Linux 6.12: `addr` is a `__kernel_sockaddr_storage` of 128 octets, and what follows it is
/// quoted beside. What has no name of ours is a bit field or a size.
fn fields() -> Vec<(&'static str, usize, usize)> {
    vec![
        // struct tcp_ao_add { ..addr; char alg_name[64]; __s32 ifindex; __u32 set_current:1, set_rnext:1, reserved:30;
        // __u16 reserved2; __u8 prefix, sndid, rcvid, maclen, keyflags, keylen; __u8 key[TCP_AO_MAXKEYLEN]; }
        ("tcp_ao_add.addr", offset_of!(AddKey, address), 0),
        ("tcp_ao_add.alg_name", offset_of!(AddKey, algorithm), 128),
        ("tcp_ao_add.ifindex", offset_of!(AddKey, interface_index), 192),
        ("tcp_ao_add.reserved2", offset_of!(AddKey, reserved), 200),
        ("tcp_ao_add.prefix", offset_of!(AddKey, prefix_length), 202),
        ("tcp_ao_add.sndid", offset_of!(AddKey, send_id), 203),
        ("tcp_ao_add.rcvid", offset_of!(AddKey, receive_id), 204),
        ("tcp_ao_add.maclen", offset_of!(AddKey, mac_length), 205),
        ("tcp_ao_add.keyflags", offset_of!(AddKey, key_flags), 206),
        ("tcp_ao_add.keylen", offset_of!(AddKey, key_length), 207),
        ("tcp_ao_add.key", offset_of!(AddKey, key), 208),
        ("tcp_ao_add", size_of::<AddKey>(), 288),
        // struct tcp_ao_del { ..addr; __s32 ifindex; __u32 set_current:1, set_rnext:1, del_async:1, reserved:29;
        // __u16 reserved2; __u8 prefix, sndid, rcvid, current_key, rnext, keyflags; }
        ("tcp_ao_del.addr", offset_of!(DeleteKey, address), 0),
        ("tcp_ao_del.ifindex", offset_of!(DeleteKey, interface_index), 128),
        ("tcp_ao_del.reserved2", offset_of!(DeleteKey, reserved), 136),
        ("tcp_ao_del.prefix", offset_of!(DeleteKey, prefix_length), 138),
        ("tcp_ao_del.sndid", offset_of!(DeleteKey, send_id), 139),
        ("tcp_ao_del.rcvid", offset_of!(DeleteKey, receive_id), 140),
        ("tcp_ao_del.current_key", offset_of!(DeleteKey, current), 141),
        ("tcp_ao_del.rnext", offset_of!(DeleteKey, next), 142),
        ("tcp_ao_del.keyflags", offset_of!(DeleteKey, key_flags), 143),
        ("tcp_ao_del", size_of::<DeleteKey>(), 144),
        // struct tcp_ao_info_opt { __u32 set_current:1, set_rnext:1, ao_required:1, set_counters:1, accept_icmps:1,
        // reserved:27; __u16 reserved2; __u8 current_key, rnext; __u64 pkt_good, pkt_bad, pkt_key_not_found,
        // pkt_ao_required, pkt_dropped_icmp; }
        ("tcp_ao_info_opt.reserved2", offset_of!(Settings, reserved), 4),
        ("tcp_ao_info_opt.current_key", offset_of!(Settings, current), 6),
        ("tcp_ao_info_opt.rnext", offset_of!(Settings, next), 7),
        ("tcp_ao_info_opt.pkt_good", offset_of!(Settings, good), 8),
        ("tcp_ao_info_opt.pkt_bad", offset_of!(Settings, bad), 16),
        ("tcp_ao_info_opt.pkt_key_not_found", offset_of!(Settings, key_not_found), 24),
        ("tcp_ao_info_opt.pkt_ao_required", offset_of!(Settings, required), 32),
        ("tcp_ao_info_opt.pkt_dropped_icmp", offset_of!(Settings, dropped_icmp), 40),
        ("tcp_ao_info_opt", size_of::<Settings>(), 48),
        // struct tcp_ao_getsockopt { ..addr; char alg_name[64]; __u8 key[TCP_AO_MAXKEYLEN]; __u32 nkeys;
        // __u16 is_current:1, is_rnext:1, get_all:1, reserved:13; __u8 sndid, rcvid, prefix, maclen, keyflags, keylen;
        // __s32 ifindex; __u64 pkt_good, pkt_bad; }
        ("tcp_ao_getsockopt.addr", offset_of!(KeyEntry, address), 0),
        ("tcp_ao_getsockopt.alg_name", offset_of!(KeyEntry, algorithm), 128),
        ("tcp_ao_getsockopt.key", offset_of!(KeyEntry, key), 192),
        ("tcp_ao_getsockopt.nkeys", offset_of!(KeyEntry, count), 272),
        ("tcp_ao_getsockopt.sndid", offset_of!(KeyEntry, send_id), 278),
        ("tcp_ao_getsockopt.rcvid", offset_of!(KeyEntry, receive_id), 279),
        ("tcp_ao_getsockopt.prefix", offset_of!(KeyEntry, prefix_length), 280),
        ("tcp_ao_getsockopt.maclen", offset_of!(KeyEntry, mac_length), 281),
        ("tcp_ao_getsockopt.keyflags", offset_of!(KeyEntry, key_flags), 282),
        ("tcp_ao_getsockopt.keylen", offset_of!(KeyEntry, key_length), 283),
        ("tcp_ao_getsockopt.ifindex", offset_of!(KeyEntry, interface_index), 284),
        ("tcp_ao_getsockopt.pkt_good", offset_of!(KeyEntry, good), 288),
        ("tcp_ao_getsockopt.pkt_bad", offset_of!(KeyEntry, bad), 296),
        ("tcp_ao_getsockopt", size_of::<KeyEntry>(), 304),
    ]
}

/// The bit fields: structure and field, where its word is here, and its bit in that word's octets.
fn bits() -> [(&'static str, &'static str, usize, Vec<u8>); 7] {
    let word = |bit: u32| bit.to_ne_bytes().to_vec();
    [
        ("tcp_ao_add", "set_current", offset_of!(AddKey, flags), word(SET_CURRENT)),
        ("tcp_ao_add", "set_rnext", offset_of!(AddKey, flags), word(SET_NEXT)),
        ("tcp_ao_del", "del_async", offset_of!(DeleteKey, flags), word(ASYNCHRONOUS)),
        ("tcp_ao_info_opt", "set_current", offset_of!(Settings, flags), word(SET_CURRENT)),
        ("tcp_ao_info_opt", "set_rnext", offset_of!(Settings, flags), word(SET_NEXT)),
        ("tcp_ao_info_opt", "ao_required", offset_of!(Settings, flags), word(REQUIRED)),
        ("tcp_ao_getsockopt", "get_all", offset_of!(KeyEntry, flags), ALL_KEYS.to_ne_bytes().to_vec()),
    ]
}

#[test]
fn the_structures_are_the_kernels() {
    for (name, ours, kernels) in fields() {
        assert_eq!(ours, kernels, "{name}");
    }
    assert_eq!((bits()[0].2, bits()[2].2, bits()[3].2, bits()[6].2), (196, 132, 0, 276));
    assert_eq!((TCP_AO_ADD_KEY, TCP_AO_DEL_KEY, TCP_AO_INFO, TCP_AO_GET_KEYS), (38, 39, 40, 41));
    if cfg!(target_endian = "little") {
        assert_eq!((SET_CURRENT, SET_NEXT, ASYNCHRONOUS, REQUIRED, ALL_KEYS), (1, 2, 4, 4, 4));
    }
}

/// What a C compiler makes of the kernel's header, by name; none where either is missing or older than TCP-AO.
/// `LINUX_HEADERS` names another directory of headers than the system's.
fn by_the_header() -> Option<BTreeMap<String, usize>> {
    let mut program = "\
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <linux/tcp.h>
#define BIT(type, field) do { struct type v; unsigned char *at = (void *)&v; size_t i; memset(&v, 0, sizeof v); \\
  v.field = 1; for (i = 0; i < sizeof v; i++) if (at[i]) printf(#type \".\" #field \" %zu\\n\", i * 256 + at[i]); \\
} while (0)
int main(void) {
  printf(\"TCP_AO_ADD_KEY %d\\nTCP_AO_DEL_KEY %d\\n\", TCP_AO_ADD_KEY, TCP_AO_DEL_KEY);
  printf(\"TCP_AO_INFO %d\\nTCP_AO_GET_KEYS %d\\n\", TCP_AO_INFO, TCP_AO_GET_KEYS);
  printf(\"TCP_AO_MAXKEYLEN %d\\n\", TCP_AO_MAXKEYLEN);
"
    .to_owned();
    for (name, _, _) in fields() {
        program += &match name.split_once('.') {
            Some((of, field)) => format!("  printf(\"{name} %zu\\n\", offsetof(struct {of}, {field}));\n"),
            None => format!("  printf(\"{name} %zu\\n\", sizeof(struct {name}));\n"),
        };
    }
    for (of, field, _, _) in bits() {
        program += &format!("  BIT({of}, {field});\n");
    }
    program += "  return 0;\n}\n";

    let directory = std::env::temp_dir().join(format!("plainroute-tcp-ao-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let binary = directory.join("layout");
    let mut compiler = Command::new("cc");
    if let Some(headers) = std::env::var_os("LINUX_HEADERS") {
        compiler.arg("-isystem").arg(headers);
    }
    compiler.args(["-x", "c", "-", "-o"]).arg(&binary);
    let compiler = compiler.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let printed = compiler.ok().and_then(|mut compiler| {
        compiler.stdin.take().expect("piped").write_all(program.as_bytes()).ok()?;
        let output = compiler.wait_with_output().expect("cc ends");
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            // Anything else would be an error of this test's, but for a compiler that is not whole.
            let lacks = ["tcp_ao_add", "linux/tcp.h", "cannot execute"];
            assert!(lacks.iter().any(|what| errors.contains(what)), "{errors}");
            return None;
        }
        Some(String::from_utf8(Command::new(&binary).output().expect("runs").stdout).expect("text"))
    });
    std::fs::remove_dir_all(&directory).unwrap();
    let pair =
        |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    Some(printed?.lines().filter_map(pair).collect())
}

#[test]
fn the_structures_are_those_of_the_installed_header() {
    let Some(header) = by_the_header() else {
        // Debian 12's header is of Linux 6.1; the numbers above are of 6.12's.
        return the_structures_are_the_kernels();
    };
    for (name, ours, _) in fields() {
        assert_eq!(header.get(name), Some(&ours), "{name}");
    }
    for (of, field, at, octets) in bits() {
        let place = octets.iter().position(|octet| *octet != 0).expect("one bit is set");
        let value = (at + place) * 256 + usize::from(octets[place]);
        assert_eq!(header.get(&format!("{of}.{field}")), Some(&value), "{of}.{field}");
    }
    let options = [
        ("TCP_AO_ADD_KEY", TCP_AO_ADD_KEY as usize),
        ("TCP_AO_DEL_KEY", TCP_AO_DEL_KEY as usize),
        ("TCP_AO_INFO", TCP_AO_INFO as usize),
        ("TCP_AO_GET_KEYS", TCP_AO_GET_KEYS as usize),
        ("TCP_AO_MAXKEYLEN", Password::MAX_LENGTH),
    ];
    for (name, ours) in options {
        assert_eq!(header.get(name), Some(&ours), "{name}");
    }
}

/// No octet of what the kernel reads is without a value of ours.
#[test]
fn nothing_lies_between_the_fields() {
    let add = 128 + 64 + 4 + 4 + 2 + 6 + 80;
    let delete = 128 + 4 + 4 + 2 + 6;
    let settings = 4 + 2 + 2 + 5 * 8;
    let entry = 128 + 64 + 80 + 4 + 2 + 6 + 4 + 2 * 8;
    assert_eq!(
        [add, delete, settings, entry],
        [size_of::<AddKey>(), size_of::<DeleteKey>(), size_of::<Settings>(), size_of::<KeyEntry>()]
    );
}

/// Both answers of the kernel are right; a third is not.
#[test]
fn the_probe_names_what_the_kernel_lacks() {
    for algorithm in TcpAoAlgorithm::ALL {
        match probe(algorithm) {
            Ok(()) => {}
            Err(reason) => assert!(
                reason.contains("needs Linux 6.7 with CONFIG_TCP_AO") || reason.contains("does not know"),
                "{reason}"
            ),
        }
    }
}
