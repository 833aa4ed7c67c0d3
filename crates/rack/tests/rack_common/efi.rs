//! A program for UEFI x86_64 machines, small enough to be made here: it writes a text to the
//! serial port and then restarts, shuts down or stands still. So a test can tell a machine that
//! booted its disk from one that booted its network, without an operating system.

use std::path::Path;
use std::process::Command;

/// What the program does after it wrote its text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Reset,
    ShutDown,
    StandStill,
}

/// Writes a FAT file system with the program as `\EFI\BOOT\BOOTX64.EFI` over a disk's image;
/// `false`, after it said why, without mtools.
pub(crate) fn make_bootable(disk: &Path, text: &str, then: Then) -> bool {
    let folder = tempfile::tempdir().expect("a directory");
    let program = folder.path().join("BOOTX64.EFI");
    std::fs::write(&program, program_bytes(text, then)).expect("the program");
    let run = |name: &str, args: &[&str]| match Command::new(name)
        .arg("-i")
        .arg(disk)
        .args(args)
        .output()
    {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} failed: {said}");
            true
        }
        Err(error) => {
            println!("SKIPPED: {name} cannot be run: {error}");
            false
        }
    };
    let from = program.to_str().expect("a plain path");
    run("mformat", &["-F", "::"])
        && run("mmd", &["::/EFI", "::/EFI/BOOT"])
        && run("mcopy", &[from, "::/EFI/BOOT/BOOTX64.EFI"])
}

/// The machine code of the program. Offsets into the system table and the runtime services are
/// those of the UEFI specification, sections 4.3 and 4.5.
fn code(text: &str, then: Then) -> Vec<u8> {
    let kind = match then {
        Then::Reset => 0,
        Then::ShutDown => 2,
        Then::StandStill => 0xff,
    };
    #[rustfmt::skip]
    let mut code = vec![
        0x53,                               // push rbx
        0x48, 0x83, 0xec, 0x20,             // sub rsp, 32
        0x48, 0x89, 0xd3,                   // mov rbx, rdx        ; the system table
        0x48, 0x8d, 0x35, 0, 0, 0, 0,       // lea rsi, [text]
        // next:
        0xac,                               // lodsb
        0x84, 0xc0,                         // test al, al
        0x74, 0x14,                         // jz done
        0x88, 0xc1,                         // mov cl, al
        0x66, 0xba, 0xfd, 0x03,             // mov dx, 0x3fd       ; line status
        // busy:
        0xec,                               // in al, dx
        0xa8, 0x20,                         // test al, 0x20       ; transmitter empty
        0x74, 0xfb,                         // jz busy
        0x88, 0xc8,                         // mov al, cl
        0x66, 0xba, 0xf8, 0x03,             // mov dx, 0x3f8       ; data
        0xee,                               // out dx, al
        0xeb, 0xe7,                         // jmp next
        // done:
        0xb9, kind, 0, 0, 0,                // mov ecx, kind
        0x80, 0xf9, 0xff,                   // cmp cl, 0xff
        0x74, 0xfe,                         // je here             ; stand still
        0x31, 0xd2,                         // xor edx, edx
        0x45, 0x31, 0xc0,                   // xor r8d, r8d
        0x45, 0x31, 0xc9,                   // xor r9d, r9d
        0x48, 0x8b, 0x43, 0x58,             // mov rax, [rbx+0x58] ; runtime services
        0xff, 0x50, 0x68,                   // call [rax+0x68]     ; ResetSystem
        0xeb, 0xfe,                         // jmp here
    ];
    let after_lea = 15;
    let distance = u32::try_from(code.len() - after_lea).expect("short code");
    code[11..15].copy_from_slice(&distance.to_le_bytes());
    code.extend(text.bytes());
    code.push(0);
    code
}

/// The program as a PE32+ image with one section (Microsoft's PE format, "Optional Header").
fn program_bytes(text: &str, then: Then) -> Vec<u8> {
    const FILE_ALIGNMENT: usize = 0x200;
    const SECTION_AT: u32 = 0x1000;
    let mut body = code(text, then);
    body.resize(body.len().next_multiple_of(FILE_ALIGNMENT), 0);
    let body_bytes = u32::try_from(body.len()).expect("a short program");

    let mut image = vec![0; 0x40];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image.extend(b"PE\0\0");
    image.extend(0x8664u16.to_le_bytes()); // x86_64
    image.extend(1u16.to_le_bytes()); // sections
    image.extend([0; 12]);
    image.extend(240u16.to_le_bytes()); // optional header
    image.extend(0x0206u16.to_le_bytes()); // executable, no line numbers, no debug information

    let optional_at = image.len();
    image.extend(0x20bu16.to_le_bytes()); // PE32+
    image.extend([0, 0]);
    for field in [body_bytes, 0, 0, SECTION_AT, SECTION_AT] {
        image.extend(field.to_le_bytes()); // sizes of code and data, entry point, base of code
    }
    image.extend(0u64.to_le_bytes()); // image base
    image.extend(SECTION_AT.to_le_bytes()); // section alignment
    image.extend((FILE_ALIGNMENT as u32).to_le_bytes());
    image.extend([0; 16]); // versions
    let image_bytes = SECTION_AT + body_bytes.next_multiple_of(SECTION_AT);
    image.extend(image_bytes.to_le_bytes());
    image.extend((FILE_ALIGNMENT as u32).to_le_bytes()); // headers
    image.extend([0; 4]); // checksum
    image.extend(10u16.to_le_bytes()); // EFI application
    image.extend([0; 2]);
    image.extend([0; 32]); // stack and heap
    image.extend([0; 4]);
    image.extend(16u32.to_le_bytes()); // data directories, all empty
    image.resize(optional_at + 240, 0);

    image.extend(b".text\0\0\0");
    for field in [
        body_bytes,
        SECTION_AT,
        body_bytes,
        FILE_ALIGNMENT as u32,
        0,
        0,
        0,
    ] {
        image.extend(field.to_le_bytes());
    }
    image.extend(0xe000_0020u32.to_le_bytes()); // code; read, write, execute
    image.resize(FILE_ALIGNMENT, 0);
    image.extend(body);
    image
}
