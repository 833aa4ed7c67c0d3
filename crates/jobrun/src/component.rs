//! WebAssembly components with `wasi:cli/run` of WASI 0.2, by Wasmtime.
//!
//! Compiling happens inside the sandbox, too: what is made to be hard to compile uses up its own memory and time.

use std::{fs::File, io::Read as _, process::ExitCode};

use crate::no::No;
use undercroft_sandbox::{
    FileDigest,
    order::{INPUTS, OUTPUT, PROGRAM},
};
use wasmtime::{
    Config, Engine, Store, StoreLimits, StoreLimitsBuilder,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{
    FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    p2::{add_to_linker_sync, bindings::sync::Command},
};

/// The largest component, in bytes.
const COMPONENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// The most elements of one table. Those of compilers have some thousands.
const TABLE_ELEMENTS_MAX: usize = 1_000_000;
/// The most tables, and the most memories, of all instances.
const TABLES_MAX: usize = 1_000;
/// The most instances. A component of several languages has a dozen.
const INSTANCES_MAX: usize = 1_000;
/// The stack of a component, in bytes.
const STACK_BYTES: usize = 1024 * 1024;
/// What a module of the core begins with, where a component has another version.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Reads the component whole, and compares what was read.
pub(crate) fn read(wanted: Option<FileDigest>) -> Result<Vec<u8>, No> {
    let fail = |error: std::io::Error| format!("can't read {PROGRAM}: {error}");
    let wanted = wanted.ok_or("no digest of the component")?;
    let mut bytes = Vec::new();
    let file = File::open(PROGRAM).map_err(fail)?;
    file.take(COMPONENT_BYTES_MAX.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > COMPONENT_BYTES_MAX {
        let max = COMPONENT_BYTES_MAX;
        return Err(No::Unfit(format!(
            "the component has more than {max} bytes"
        )));
    }
    let (found, _) = FileDigest::of(bytes.as_slice(), COMPONENT_BYTES_MAX).map_err(fail)?;
    if found != wanted {
        let why = format!("{PROGRAM} is {found}, and {wanted} was to be run");
        return Err(No::Refused(why));
    }
    if bytes.starts_with(CORE_MODULE) {
        return Err(No::Unfit(
            "it is a module of WebAssembly's core, and components of WASI 0.2 are run; `wasm-tools component new` makes one of it"
                .to_owned(),
        ));
    }
    Ok(bytes)
}

/// Runs a component to its end. An error is why it ended otherwise than by its own word.
pub(crate) fn run(
    bytes: &[u8],
    arguments: &[String],
    memory_bytes: u64,
) -> Result<ExitCode, String> {
    let engine = engine().map_err(|error| format!("Wasmtime: {error:#}"))?;
    let component = Component::new(&engine, bytes)
        .map_err(|error| format!("the component can't be compiled: {error:#}"))?;
    let ran = call(&engine, &component, arguments, memory_bytes);
    match ran {
        Ok(Ok(())) => Ok(ExitCode::SUCCESS),
        Ok(Err(())) => Ok(ExitCode::FAILURE),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(ExitCode::from(u8::try_from(exit.0).unwrap_or(1))),
            None => Err(format!("{error:#}")),
        },
    }
}

fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(false)
        .wasm_backtrace_max_frames(None);
    Engine::new(&config)
}

fn call(
    engine: &Engine,
    component: &Component,
    arguments: &[String],
    memory_bytes: u64,
) -> wasmtime::Result<Result<(), ()>> {
    let mut linker = Linker::new(engine);
    add_to_linker_sync(&mut linker)?;
    let mut store = Store::new(engine, host(arguments, memory_bytes)?);
    store.limiter(|host| &mut host.limits);
    let command = Command::instantiate(&mut store, component, &linker)?;
    command.wasi_cli_run().call_run(&mut store)
}

fn host(arguments: &[String], memory_bytes: u64) -> wasmtime::Result<Host> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.arg("program")
        .args(arguments)
        .inherit_stdout()
        .inherit_stderr()
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .allow_blocking_current_thread(true)
        .preopened_dir(INPUTS, INPUTS, FsPerms::ReadOnly)?
        .preopened_dir(OUTPUT, OUTPUT, FsPerms::ReadWrite)?;
    let limits = StoreLimitsBuilder::new()
        .memory_size(usize::try_from(memory_bytes).unwrap_or(usize::MAX))
        .table_elements(TABLE_ELEMENTS_MAX)
        .tables(TABLES_MAX)
        .memories(TABLES_MAX)
        .instances(INSTANCES_MAX)
        .trap_on_grow_failure(true);
    Ok(Host {
        wasi: wasi.build(),
        table: ResourceTable::new(),
        limits: limits.build(),
    })
}
