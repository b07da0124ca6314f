//! `make image`: the controller as a container image, for each architecture, without a container engine.
//!
//! In the image is one file, the program, linked statically, which knows of which crates it was made
//! (`cargo auditable`); beside the image, for each architecture, a bill of materials. Two builds of one commit
//! with the same tools give the same bytes, wherever they are made: paths are mapped away (`compile.rs`), and what
//! is written has no times of its own (the crate `container-image`).

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use container_image::{Architecture, Archive};

mod compile; // a program from the sources
mod contents; // an image from a program
mod materials; // what the program was made of

use self::{
    compile::{Purpose, Target},
    contents::About,
};

/// The most that an image may take when it is unpacked, in bytes. A limit of this repository's: it keeps what is
/// added by and by in sight.
const LARGEST: usize = 20_000_000;

/// The package whose program is in the image.
const PROGRAM: &str = "hardening-controller";

/// The repository's root.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Makes the controller's image.
#[derive(Debug, Parser)]
#[command(name = "image")]
struct Args {
    /// For which architecture: amd64 or arm64. Can be given again; otherwise both.
    #[arg(long = "platform", value_name = "ARCHITECTURE", value_parser = architecture)]
    platforms: Vec<Architecture>,
    /// The image's name, without a tag.
    #[arg(long, default_value = "localhost/hardening-controller")]
    name: String,
    /// The folder that the archive and the bills of materials are written to.
    #[arg(long, value_name = "FOLDER", default_value = "target/image")]
    output: PathBuf,
    /// The commit that it is made of, which the image then names.
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
    /// When it says that it was made, in seconds since 1970: the commit's time, so that the same commit gives the
    /// same image.
    #[arg(
        long,
        value_name = "SECONDS",
        env = "SOURCE_DATE_EPOCH",
        default_value_t = 0
    )]
    created: i64,
    /// Only compile the program of this package, for this machine, as it is compiled for an image, and print where it is. Can
    /// be given again.
    #[arg(long = "only", value_name = "PACKAGE", conflicts_with = "platforms")]
    only: Vec<String>,
    /// Compile it so that it counts what it does, which makes a profile.
    #[arg(long, requires = "only")]
    counting: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.only.is_empty() {
        make(&args)
    } else {
        compile(&args)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where not even this can be written, the exit code says it.
            let _ = writeln!(anstream::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args) -> anyhow::Result<()> {
    let Args {
        platforms,
        name,
        output,
        revision,
        created,
        ..
    } = args;
    let (root, output) = folders(output)?;
    let version = env!("CARGO_PKG_VERSION");
    let about = About {
        version,
        revision: revision.as_deref(),
        created: *created,
    };
    let mut platforms = platforms.clone();
    if platforms.is_empty() {
        platforms = vec![Architecture::Amd64, Architecture::Arm64];
    }
    platforms.sort_unstable();
    platforms.dedup();

    let mut images = Vec::new();
    for architecture in platforms {
        let target = Target::of(architecture);
        let released = (PROGRAM, Purpose::Release);
        let path = compile::program(&root, target, &output, released)?;
        let program = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            program.len() <= LARGEST,
            "{} is larger than {LARGEST} bytes: {}",
            path.display(),
            program.len()
        );
        let bill = format!(
            "hardening-controller-{version}-{}.cdx.json",
            architecture.name()
        );
        let bill = output.join(bill);
        let materials = materials::bill(&root, target, &program)?;
        fs::write(&bill, materials).with_context(|| format!("write {}", bill.display()))?;
        let image = contents::image(architecture, &program, &about)?;
        let packed: usize = image.layers.iter().map(container_image::Blob::size).sum();
        say(&format!(
            "{}: {} kB, compressed {} kB; made of: {}",
            architecture.name(),
            program.len() / 1000,
            packed / 1000,
            bill.display()
        ));
        images.push(image);
    }
    let name = format!("{name}:{version}");
    let archive = Archive::new(&name, &images)?;
    let path = output.join(format!("hardening-controller-{version}.tar"));
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    archive.write(BufWriter::new(file))?;
    say(&format!("{name}: {}", path.display()));
    say(archive.digest());
    Ok(())
}

/// Only programs.
fn compile(args: &Args) -> anyhow::Result<()> {
    let (root, output) = folders(&args.output)?;
    let target = Target::of_this_machine().context("images are not made for this machine")?;
    let purpose = if args.counting {
        Purpose::Counting
    } else {
        Purpose::Release
    };
    for package in &args.only {
        let path = compile::program(&root, target, &output, (package, purpose))?;
        say(&path.display().to_string());
    }
    Ok(())
}

/// The sources, and where what is made of them goes.
fn folders(output: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let root = Path::new(ROOT).canonicalize().context("find the sources")?;
    let output = root.join(output);
    fs::create_dir_all(&output).with_context(|| format!("create {}", output.display()))?;
    Ok((root, output))
}

fn architecture(name: &str) -> Result<Architecture, String> {
    [Architecture::Amd64, Architecture::Arm64]
        .into_iter()
        .find(|architecture| architecture.name() == name)
        .ok_or_else(|| "amd64 and arm64 are what images are made for".to_owned())
}

fn say(line: &str) {
    // Whoever closed standard output does not want to know.
    let _ = writeln!(anstream::stdout(), "{line}");
}
