//! `fanlight-provider doctor`: can this machine serve? Each finding says what is wrong and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fanlight_provider::DataDir;
use fanlight_provider::enclave::{Enclave, SimulatedEnclave};
use fanlight_provider::receipts::{Journal, JournalError};
use fanlight_provider::status;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::model_source::ModelSource;

enum Finding {
    Good(String),
    Note(String),
    Bad { what: String, fix: String },
}

fn bad(what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::Bad { what: what.into(), fix: fix.into() }
}

/// Runs every check and prints its finding. Exit 0 when nothing is bad.
#[expect(clippy::print_stdout, reason = "the findings are this command's output")]
pub(crate) async fn run(data_dir: &Path, gateway: &str, model: &ModelSource) -> ExitCode {
    let data = DataDir::new(data_dir);
    let running = status::ask(&data.control_socket()).await.ok();
    let findings = [
        ("data directory", data_directory(data_dir)),
        ("identity key", identity(&data)),
        ("receipt journal", journal(&data, running.is_some())),
        ("model", load_model(model)),
        ("gateway", reach(gateway).await),
        ("daemon", daemon(running.as_ref())),
    ];
    let mut all_good = true;
    for (check, finding) in findings {
        match finding {
            Finding::Good(text) => println!("ok    {check}: {text}"),
            Finding::Note(text) => println!("note  {check}: {text}"),
            Finding::Bad { what, fix } => {
                all_good = false;
                println!("BAD   {check}: {what}\n      fix: {fix}");
            }
        }
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn data_directory(path: &Path) -> Finding {
    match fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::Note(format!("{} is not there yet; `serve` makes it", path.display()))
        }
        Err(error) => bad(format!("{}: {error}", path.display()), "give another directory with --data"),
        Ok(meta) if !meta.is_dir() => bad(format!("{} is not a directory", path.display()), "give another with --data"),
        Ok(meta) if meta.permissions().mode() & 0o022 != 0 => {
            bad(format!("others can write to {}", path.display()), format!("chmod go-w {}", path.display()))
        }
        Ok(_) => match tempfile_in(path) {
            Ok(()) => Finding::Good(format!("{} can be written", path.display())),
            Err(error) => {
                bad(format!("{} cannot be written: {error}", path.display()), "free some space, or mend its permissions")
            }
        },
    }
}

fn tempfile_in(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    fs::write(&path, b"doctor").and_then(|()| fs::remove_file(&path))
}

fn identity(data: &DataDir) -> Finding {
    let path = data.identity_key();
    if !path.exists() {
        return Finding::Note("none yet; `serve` makes one".to_owned());
    }
    match SimulatedEnclave::open(&path) {
        Ok(enclave) => {
            Finding::Good(format!("provider {}, in a simulated enclave (grade self-signed)", enclave.identity().provider_id()))
        }
        Err(error) => bad(format!("failed to {error}"), "see above; a new identity loses the old one's history"),
    }
}

fn journal(data: &DataDir, running: bool) -> Finding {
    if running || !data.journal().exists() {
        let text = if running { "in use by the running daemon, which checked it" } else { "none yet" };
        return Finding::Note(text.to_owned());
    }
    let Ok(enclave) = SimulatedEnclave::open(&data.identity_key()) else {
        return bad("there is a journal, but no identity key that opens", "restore identity.key from a backup");
    };
    match Journal::open(&data.journal(), enclave.identity()) {
        Ok(journal) => Finding::Good(format!("{} receipts, chain unbroken", journal.next_counter())),
        Err(error @ JournalError::Damaged { .. }) => {
            bad(format!("failed to {error}"), "restore receipts.journal and identity.key from one backup")
        }
        Err(error) => bad(format!("failed to {error}"), "stop the other process, or mend the file's permissions"),
    }
}

fn load_model(model: &ModelSource) -> Finding {
    match model.start() {
        Ok(engine) => {
            let names: Vec<_> =
                engine.models().into_iter().map(|m| format!("{} ({} tokens)", m.name, m.context_tokens)).collect();
            Finding::Good(format!("{} loads", names.join(", ")))
        }
        Err(error) => bad(format!("{error:#}"), "check the files, or leave out --model to serve the built-in test model"),
    }
}

async fn reach(gateway: &str) -> Finding {
    let fix = "check --gateway, and that the gateway runs and no firewall stands between";
    let (default_port, rest) = match gateway.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        _ => return bad(format!("{gateway} is no address of a gateway"), "begin it with http:// or https://"),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{default_port}") };
    match timeout(Duration::from_secs(5), TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Finding::Good(format!("{address} answers")),
        Ok(Err(error)) => bad(format!("{address}: {error}"), fix),
        Err(_) => bad(format!("{address} does not answer within 5 s"), fix),
    }
}

fn daemon(running: Option<&status::Status>) -> Finding {
    match running {
        None => Finding::Note("not running; start it with `fanlight-provider serve`".to_owned()),
        Some(status) if status.link == "listed" => {
            Finding::Good(format!("running and listed, {} requests served", status.totals.complete))
        }
        Some(status) => {
            let reason = status.reason.clone().unwrap_or_else(|| "it is still connecting".to_owned());
            bad(format!("running but not listed: {reason}"), "no requests come until it is listed; check the gateway")
        }
    }
}
