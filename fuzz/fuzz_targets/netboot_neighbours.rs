//! Whoever answers on the link is in the kernel's table of neighbours; any text is read as one, and
//! only lines of the interface count.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_netboot::dhcp::neighbours_in;

fuzz_target!(|text: &str| {
    let found = neighbours_in(text, "boot0");
    assert!(found.len() <= text.matches("boot0").count());
    assert!(neighbours_in(text, "").is_empty());
    for (address, mac) in found {
        assert!(text.contains(&address.to_string()));
        let line = format!("{address} 0x1 0x2 {mac} * boot0");
        assert_eq!(neighbours_in(&line, "boot0").get(&address), Some(&mac));
        assert!(neighbours_in(&line, "boot1").is_empty());
    }
});
