//! What the operator's own words say about the model's service: the `-c` arguments of the batch file
//! and the `config.toml` of the home. Only two settings matter here, so no TOML is parsed: a line that
//! is not understood counts as not there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

/// Largest `config.toml` that is looked at (1 MiB).
const CONFIG_MAX: u64 = 1 << 20;

/// The settings that name the service, and where they come from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The provider that is in force without us, where one is named at the top level.
    pub(super) provider: Option<String>,
    /// A provider is named somewhere else, as in a profile: then it is not ours to choose.
    pub(super) names_provider: bool,
    /// The endpoint of the built-in provider.
    pub(super) base_url: Option<String>,
    /// Numbers of retries are written somewhere: they stand.
    pub(super) names_retries: bool,
}

impl Settings {
    /// Those of these arguments and, below them, of the configuration in this home.
    pub(super) fn of(args: &[String], home: Option<&Path>) -> Self {
        let mut settings = Self::default();
        let config = home.and_then(|home| read(&home.join("config.toml")));
        settings.take_config(&config.unwrap_or_default());
        let given = overrides(args);
        let text = |key: &str| given.get(key).map(|value| unquoted(value));
        settings.provider = text("model_provider").or(settings.provider.take());
        settings.base_url = text("openai_base_url").or(settings.base_url.take());
        settings.names_provider |= settings.provider.is_some();
        settings.names_retries |= given.keys().any(|key| key.ends_with("_max_retries"));
        settings
    }

    fn take_config(&mut self, config: &str) {
        let mut is_top = true;
        for line in config.lines().map(str::trim) {
            is_top &= !line.starts_with('[');
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key.trim() {
                "model_provider" => {
                    self.names_provider = true;
                    if is_top {
                        self.provider = Some(unquoted(value));
                    }
                }
                "openai_base_url" if is_top => self.base_url = Some(unquoted(value)),
                key => self.names_retries |= key.ends_with("_max_retries"),
            }
        }
    }
}

fn read(path: &Path) -> Option<String> {
    let file = fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(CONFIG_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The `-c key=value` pairs among arguments, in each form that is accepted; the last one counts.
fn overrides(args: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let pair = match arg.as_str() {
            "-c" | "--config" => args.next().map(String::as_str),
            arg => arg
                .strip_prefix("--config=")
                .or_else(|| arg.strip_prefix("-c").filter(|_| !arg.starts_with("--"))),
        };
        if let Some((key, value)) = pair.and_then(|pair| pair.split_once('=')) {
            found.insert(key.trim().to_owned(), value.to_owned());
        }
    }
    found
}

/// A value without its quotes, and without the comment behind them.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.split_once(quote))
        {
            return inner.to_owned();
        }
    }
    let bare = value.split('#').next().unwrap_or_default();
    bare.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str], config: &str) -> Settings {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config.toml"), config).unwrap();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        Settings::of(&args, Some(home.path()))
    }

    #[test]
    fn a_provider_is_found_in_the_arguments_and_below_them_in_the_configuration() {
        let config = "# mine\nmodel_provider = \"fake\" # the scripted one\n\n[model_providers.fake]\nname = 'x'\n";
        assert_eq!(of(&[], config).provider.as_deref(), Some("fake"));
        for args in [
            &["-c", "model_provider=other"][..],
            &["--config", "model_provider=\"other\""],
            &["-cmodel_provider='other'"],
            &["--config=model_provider = other"],
        ] {
            assert_eq!(
                of(args, config).provider.as_deref(),
                Some("other"),
                "{args:?}"
            );
        }
        assert_eq!(of(&["--model_provider=x", "-c"], ""), Settings::default());
        assert_eq!(Settings::of(&[], None), Settings::default());
    }

    #[test]
    fn a_provider_of_a_profile_is_named_but_not_known() {
        let settings = of(
            &[],
            "profile = \"p\"\n[profiles.p]\nmodel_provider = \"x\"\n",
        );
        assert!(settings.names_provider);
        assert_eq!(settings.provider, None);
    }

    #[test]
    fn an_endpoint_and_numbers_of_retries_are_seen() {
        let settings = of(
            &["-c", "openai_base_url=http://a/v1"],
            "[x]\nopenai_base_url=\"http://b\"\n",
        );
        assert_eq!(settings.base_url.as_deref(), Some("http://a/v1"));
        assert!(!settings.names_retries && !settings.names_provider);
        assert!(of(&["-c", "model_providers.x.stream_max_retries=9"], "").names_retries);
        assert!(of(&[], "[model_providers.x]\nrequest_max_retries = 3\n").names_retries);
    }
}
