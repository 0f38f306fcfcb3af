//! `mini images`: archives straight into the node.

use crate::admin_client::{self, AdminClient, Body, block_on};
use crate::output;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use mini_config::Config;
use mini_config::admin::Image;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::io::{AsyncRead, AsyncReadExt};

#[derive(clap::Args)]
pub(crate) struct Images {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Import docker-archive or OCI tars; - is standard input
    Import {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List the node's images
    #[command(visible_alias = "ls")]
    List,
    /// Remove images by reference
    Rm {
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
    },
}

impl Images {
    pub(crate) fn run(&self, config: &Config) -> anyhow::Result<ExitCode> {
        let client = AdminClient::new(config);
        block_on(async {
            match &self.action {
                Action::Import { files } => import(&client, files).await,
                Action::List => list(&client).await,
                Action::Rm { references } => remove(&client, references).await,
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn import(client: &AdminClient, files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        for reference in import_one(client, file).await? {
            output::print(format!("{reference}\n"))?;
        }
    }
    Ok(())
}

/// Sends one archive; the references that it brought.
pub(crate) async fn import_one(client: &AdminClient, file: &Path) -> anyhow::Result<Vec<String>> {
    let body = if file == Path::new("-") {
        streamed(tokio::io::stdin())
    } else {
        let open = tokio::fs::File::open(file).await;
        streamed(open.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let imported: Vec<String> = client
        .call(Method::POST, "/images", body)
        .await
        .with_context(|| format!("cannot import {}", file.display()))?;
    if imported.is_empty() {
        bail!("{} holds no image with a name", file.display());
    }
    Ok(imported)
}

/// A body that is read while it is sent: archives are large.
fn streamed(reader: impl AsyncRead + Send + Sync + Unpin + 'static) -> Body {
    let chunks = futures::stream::try_unfold(reader, |mut reader| async move {
        let mut chunk = Vec::with_capacity(256 << 10);
        let read = reader.read_buf(&mut chunk).await?;
        Ok::<_, io::Error>((read > 0).then(|| (Frame::data(Bytes::from(chunk)), reader)))
    });
    StreamBody::new(chunks).boxed()
}

async fn list(client: &AdminClient) -> anyhow::Result<()> {
    let mut images: Vec<Image> = client.call(Method::GET, "/images", admin_client::empty()).await?;
    images.sort_by(|a, b| a.references.cmp(&b.references));
    let rows: Vec<(String, &str, String)> = images
        .iter()
        .flat_map(|image| {
            let id = image.id.trim_start_matches("sha256:");
            let id = id.get(..12).unwrap_or(id);
            let named = image.references.iter().cloned();
            named.map(move |reference| (reference, id, size(image.size)))
        })
        .collect();
    let width = rows.iter().map(|(reference, ..)| reference.len()).max().unwrap_or_default().max("IMAGE".len());
    let mut text = format!("{:width$}  {:12}  SIZE\n", "IMAGE", "ID");
    for (reference, id, size) in rows {
        text.push_str(&format!("{reference:width$}  {id:12}  {size}\n"));
    }
    output::print(text)
}

fn size(bytes: u64) -> String {
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if tenths < 10_240 {
            break;
        }
        (tenths, unit) = (tenths / 1024, larger);
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

async fn remove(client: &AdminClient, references: &[String]) -> anyhow::Result<()> {
    for reference in references {
        let path = format!("/images?ref={}", percent_encoded(reference));
        let removed: Vec<String> = client.call(Method::DELETE, &path, admin_client::empty()).await?;
        for reference in removed {
            output::print(format!("removed {reference}\n"))?;
        }
    }
    Ok(())
}

fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!([size(0), size(1536), size(30 << 20)], ["0.0 B", "1.5 KiB", "30.0 MiB"]);
        assert_eq!(percent_encoded("a/b:1@sha256:x&y"), "a/b:1%40sha256:x%26y");
    }
}
