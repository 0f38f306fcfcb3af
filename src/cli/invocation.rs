//! The settings given on the command line and in the environment.

use anyhow::Context as _;
use mini_config::{Config, Sources};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Everything that must survive a restart [default: /var/lib/mini]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// The configuration file [default: /etc/mini/config.yaml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "MINI_CONFIG")]
    config: Option<PathBuf>,
    /// Any other setting of the configuration file
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl Settings {
    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut flags = self.set.clone();
        flags.extend(self.data_dir.iter().map(|directory| ("data-dir".to_owned(), directory.clone())));
        Ok(Config::load(&Sources { file: self.config.clone(), environment: environment.collect(), flags })?)
    }

    /// These settings with others before them.
    pub(crate) fn with(&self, own: &[(&'static str, String)]) -> Self {
        let mut settings = self.clone();
        settings.set.extend(settings.data_dir.take().map(|directory| ("data-dir".to_owned(), directory)));
        settings.set.extend(own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        settings
    }

    /// The same settings for another process of this executable, which may have another working directory.
    pub(crate) fn arguments(&self) -> anyhow::Result<Vec<OsString>> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(file) = &self.config {
            let file = std::path::absolute(file).with_context(|| format!("cannot find {}", file.display()))?;
            arguments.extend(["--config".into(), file.into_os_string()]);
        }
        if let Some(directory) = &self.data_dir {
            arguments.extend(["--data-dir".into(), directory.into()]);
        }
        for (key, value) in &self.set {
            arguments.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        Ok(arguments)
    }

    /// Is everything as the systemd unit will see it?
    pub(crate) fn is_empty(&self) -> bool {
        let set = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("MINI_"));
        self.data_dir.is_none()
            && self.config.is_none()
            && self.set.is_empty()
            && !std::env::vars_os().any(|(name, _)| set(&name))
    }
}
