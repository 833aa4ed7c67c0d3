//! A build is brought to lent PCs, and what they made is taken. Whatever goes wrong is a reason to build it here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use undercroft_lend::{
    DeviceName, Digest, Epoch, JobId,
    build::{BUILD_VERSION, Build, FILES, FILES_INPUT, in_store},
    job::{Runtime, Submission},
    wire::{
        CONTENT_BYTES_MAX, Made,
        submit::{JobLine, Stands},
    },
};
use undercroft_nar::ArchiveLimits;
use undercroft_process::clock;

use super::{
    bundles::bundles, known::Known, place, request::NixRequest, settings::NixSettings,
    told::NixTold,
};
use crate::{
    bus::{Bus, BusSettings, Inbox},
    keys::UserKey,
    server::Scan,
    submit::{Patience, Submitting},
};

/// How long it may take to reach NATS.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// What is asked before a PC has begun is asked twice, and waited for so long each time: the build waits.
const PATIENCE: Patience = Patience {
    answer_ms: 3_000,
    tries: 2,
};
/// Time between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it is tried to call a job off. One that isn't ends by its own limits.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);
/// How long a job may take beyond its own time: what it reads is fetched, and what it made is brought.
const BEYOND: Duration = Duration::from_secs(1800);
/// Files, folders and links of one archive, at most.
const ENTRIES_MAX: u64 = 500_000;

/// Builds it on a lent PC. An error is why not, as a clause.
pub(super) async fn build(
    settings: &NixSettings,
    request: &NixRequest,
    scan: Scan,
    tell: &mut (dyn FnMut(NixTold<'_>) + Send),
) -> Result<(), String> {
    let since = Instant::now();
    let server = connect(settings).await?;
    waits(&server, settings, since).await?;
    let submission = bring(&server, settings, request, scan).await?;
    let id = submission.id.clone();
    let line = server.submit_as(submission).await;
    line.map_err(|error| error.to_string())?;
    let ended = wait(&server, settings, &id, tell).await;
    let (device, is_done) = match ended {
        Ok(ended) => ended,
        Err(why) => {
            // One that can't be called off is taken by nobody who waits for it.
            let _ = tokio::time::timeout(CANCEL_LIMIT, server.cancel(&id)).await;
            return Err(why);
        }
    };
    let mut log = Vec::new();
    if server
        .fetch(&id, Made::Log, &mut log, Path::new("log"))
        .await
        .is_ok()
    {
        tell(NixTold::Log(&log));
    }
    if let Some(why) = is_done {
        return Err(why);
    }
    let taken = take(&server, request, &id).await;
    taken.map_err(|why| format!("what {device} made can't be taken: {why}"))
}

/// Waits until a PC waits for work: what a build reads may be large, and is brought for nobody.
async fn waits(server: &Submitting, settings: &NixSettings, since: Instant) -> Result<(), String> {
    let limit = Duration::from_secs(settings.wait_s.into());
    loop {
        let waiting = server.lenders(Runtime::Nix).await;
        if waiting.map_err(|error| error.to_string())? > 0 {
            return Ok(());
        }
        if since.elapsed() >= limit {
            return Err(nobody(settings));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn nobody(settings: &NixSettings) -> String {
    format!("no lent PC began within {} s", settings.wait_s)
}

async fn connect(settings: &NixSettings) -> Result<Submitting, String> {
    let key = UserKey::read(&settings.key_file).map_err(|error| error.to_string())?;
    let bus = BusSettings {
        url: settings.nats_url.clone(),
        ca_file: settings.ca_file.clone(),
        key: Arc::new(key),
        name: "undercroft lend build".to_owned(),
        inbox: Inbox::Submitter(settings.submitter.to_string()),
    };
    let connected = tokio::time::timeout(CONNECT_LIMIT, Bus::connect(&bus)).await;
    let bus = match connected {
        Ok(bus) => bus.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("{} doesn't answer", settings.nats_url)),
    };
    Ok(Submitting::new(bus, &settings.submitter).with_patience(PATIENCE))
}

/// Brings all that a build reads, and says what is to be built.
async fn bring(
    server: &Submitting,
    settings: &NixSettings,
    request: &NixRequest,
    scan: Scan,
) -> Result<Submission, String> {
    let spare = request.top_tmp_dir.join("undercroft.nar");
    let mut inputs = BTreeMap::new();
    let paths = bring_paths(server, settings, request, scan, &spare, &mut inputs).await?;
    let has_files = fs::read_dir(&request.tmp_dir)
        .map_err(|error| format!("{}: {error}", request.tmp_dir.display()))?
        .next()
        .is_some();
    if has_files {
        let name = request.tmp_dir.file_name().and_then(|name| name.to_str());
        let folder = request.tmp_dir.parent().unwrap_or(Path::new("/"));
        let entries = BTreeMap::from([(FILES.to_owned(), name.unwrap_or_default().to_owned())]);
        pack(folder, &entries, &spare)?;
        inputs.insert(FILES_INPUT.to_owned(), send(server, &spare, scan).await?);
    }
    let build = Build {
        version: BUILD_VERSION,
        system: request.system.clone(),
        builder: request.builder.clone(),
        arguments: request.args.clone(),
        environment: request.env.clone(),
        paths,
        outputs: request.output_names(),
        shell: settings.shell.clone(),
    };
    build.check().map_err(|error| error.to_string())?;
    fs::write(&spare, build.write()).map_err(|error| format!("{}: {error}", spare.display()))?;
    let artefact = send(server, &spare, scan).await?;
    // What is left goes with the folder.
    let _ = fs::remove_file(&spare);
    Ok(Submission {
        id: job_id(request)?,
        tenant: settings.tenant.clone(),
        runtime: Runtime::Nix,
        class: None,
        artefact,
        arguments: Vec::new(),
        inputs,
        limits: settings.limits.clone(),
        needs: Default::default(),
        sensitivity: settings.sensitivity.clone(),
        // A second try is made here.
        attempts: Some(1),
        loss_s: None,
        rerun_percent: None,
    })
}

/// Brings the store paths that the server hasn't got, and says in which input each is.
async fn bring_paths(
    server: &Submitting,
    settings: &NixSettings,
    request: &NixRequest,
    scan: Scan,
    spare: &PathBuf,
    inputs: &mut BTreeMap<String, Digest>,
) -> Result<BTreeMap<String, String>, String> {
    let mut names: Vec<&str> = request
        .input_paths
        .iter()
        .map(|p| request.name(p))
        .collect();
    // A shell needs no other store path; it isn't among what a derivation reads.
    let shell = settings.shell.as_deref().and_then(in_store);
    let shell = shell.and_then(|inside| inside.split('/').next());
    names.extend(shell.filter(|name| !names.contains(name)));
    let known = Known::new(settings.cache_directory.as_deref());
    let bundles = bundles(&names);
    let asked: Vec<Digest> = bundles
        .values()
        .filter_map(|inside| known.get(inside))
        .collect();
    let there = match asked.is_empty() {
        true => BTreeSet::new(),
        false => server
            .have(asked)
            .await
            .map_err(|error| error.to_string())?,
    };
    let mut paths = BTreeMap::new();
    for (input, inside) in bundles {
        let digest = match known.get(&inside).filter(|digest| there.contains(digest)) {
            Some(digest) => digest,
            None => {
                let entries = inside.iter().map(|name| (name.clone(), name.clone()));
                pack(&request.real_store_dir, &entries.collect(), spare)?;
                let digest = send(server, spare, scan).await?;
                known.put(&inside, digest);
                digest
            }
        };
        inputs.insert(input.clone(), digest);
        paths.extend(inside.into_iter().map(|name| (name, input.clone())));
    }
    Ok(paths)
}

async fn send(server: &Submitting, file: &Path, scan: Scan) -> Result<Digest, String> {
    let brought = server.bring_file(file.to_owned(), scan, &mut |_| {}).await;
    brought.map_err(|error| error.to_string())
}

fn pack(folder: &Path, entries: &BTreeMap<String, String>, to: &PathBuf) -> Result<(), String> {
    let words = |error: std::io::Error| format!("{}: {error}", to.display());
    let limits = ArchiveLimits {
        bytes: CONTENT_BYTES_MAX,
        entries: ENTRIES_MAX,
    };
    let mut file = BufWriter::new(File::create(to).map_err(words)?);
    undercroft_nar::pack(folder, entries, limits, &mut file).map_err(|error| error.to_string())?;
    file.flush().map_err(words)
}

/// A name that no other build has: the same twice is built twice, as Nix asked for it twice.
fn job_id(request: &NixRequest) -> Result<JobId, String> {
    let first = request.outputs.values().next();
    let first = first.map_or("", |path| request.name(path));
    let digits: String = first.chars().take(32).collect();
    let id = format!("nix-{digits}-{:x}", clock::wall_ms_now());
    id.parse::<JobId>().map_err(|error| error.to_string())
}

/// Waits until it has been built; says by whom, and why it failed where it did. An error is why it isn't waited for any
/// longer.
async fn wait(
    server: &Submitting,
    settings: &NixSettings,
    id: &JobId,
    tell: &mut (dyn FnMut(NixTold<'_>) + Send),
) -> Result<(String, Option<String>), String> {
    let since = Instant::now();
    let begins_within = Duration::from_secs(settings.wait_s.into());
    let silent_max = Duration::from_secs(settings.silent_s.into());
    let ends_within = Duration::from_secs(settings.limits.wall_s.into()) + BEYOND;
    let mut has: Option<(DeviceName, Epoch)> = None;
    let mut heard = since;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let left = match has {
            None => begins_within.saturating_sub(since.elapsed()),
            Some(_) => silent_max.saturating_sub(heard.elapsed()),
        };
        let shown = tokio::time::timeout(left.max(LOOK_EVERY), server.show(id)).await;
        match shown {
            Ok(Ok(line)) => {
                heard = Instant::now();
                if let Some(ended) = judge(line, &mut has, tell)? {
                    return Ok(ended);
                }
            }
            Ok(Err(error)) if heard.elapsed() > silent_max => return Err(error.to_string()),
            Ok(Err(_)) | Err(_) => {}
        }
        if has.is_none() && since.elapsed() >= begins_within {
            return Err(nobody(settings));
        }
        if heard.elapsed() >= silent_max {
            return Err(format!(
                "the server of lending was silent for {} s",
                settings.silent_s
            ));
        }
        if since.elapsed() >= ends_within {
            return Err(format!("it took longer than {} s", ends_within.as_secs()));
        }
    }
}

fn built_by(device: &DeviceName, consent: u64) -> NixTold<'static> {
    NixTold::Line(format!(
        "It is built by {device}, under its owner's consent {consent}."
    ))
}

/// What a look at the job means.
fn judge(
    line: JobLine,
    has: &mut Option<(DeviceName, Epoch)>,
    tell: &mut (dyn FnMut(NixTold<'_>) + Send),
) -> Result<Option<(String, Option<String>)>, String> {
    match (line.stands, &has) {
        // Between two looks somebody had it. Others could take it; here it is built at once.
        (Stands::Queued, None) if line.epoch > Epoch::default() => {
            Err("a lent PC gave it back before it was done".to_owned())
        }
        (Stands::Queued, None) => Ok(None),
        (Stands::Queued, Some((device, _))) => {
            Err(format!("{device} gave it back before it was done"))
        }
        (Stands::Leased { device, consent }, None) => {
            tell(built_by(&device, consent));
            *has = Some((device, line.epoch));
            Ok(None)
        }
        (Stands::Leased { .. }, Some((device, epoch))) if line.epoch != *epoch => {
            Err(format!("{device} gave it back before it was done"))
        }
        (Stands::Leased { .. }, Some(_)) => Ok(None),
        (
            Stands::Done {
                device, consent, ..
            },
            has,
        ) => {
            if has.is_none() {
                tell(built_by(&device, consent));
            }
            Ok(Some((device.to_string(), None)))
        }
        (Stands::Dead { why }, has) => {
            // Between two looks it was begun and had failed.
            let device = match has {
                Some((device, _)) => device.to_string(),
                None => "a lent PC".to_owned(),
            };
            let why = why.lines().next().unwrap_or_default().to_owned();
            // Another machine's failure proves nothing: it has other limits, and is lent.
            let why = format!("it failed on {device} ({why}), which is tried once more");
            Ok(Some((device, Some(why))))
        }
    }
}

/// Fetches what was made, and puts it into the store.
async fn take(server: &Submitting, request: &NixRequest, id: &JobId) -> Result<(), String> {
    let path = request.top_tmp_dir.join("outputs.nar");
    let words = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(words)?;
    let fetched = server.fetch(id, Made::Output, &mut file, &path).await;
    fetched.map_err(|error| error.to_string())?;
    let placed = place::unpack(&mut file, &request.output_names(), &request.real_store_dir);
    // What is left goes with the folder.
    let _ = fs::remove_file(&path);
    placed
}
