//! Where the API of a forge is, and with which rights it is asked.

use protocol::forge::{DEFAULT_HOST, Place};

use super::answer::Transport;
use super::error::ForgeError;
use super::gh::Gh;
use super::http::Http;

/// The API of [`DEFAULT_HOST`].
const DEFAULT_API: &str = "https://api.github.com";
/// Variables with a token of [`DEFAULT_HOST`], or of the API that is named instead.
const TOKENS: [&str; 2] = ["GH_TOKEN", "GITHUB_TOKEN"];
/// Variables with a token of every other forge: one is never sent to the other.
const OTHER_TOKENS: [&str; 2] = ["GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"];

/// Where, and with which rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The address that paths are put behind.
    pub(super) api: String,
    /// The forge, as `gh` and people name it.
    pub(super) host: String,
    /// Who asks, for messages.
    pub(super) who: String,
    token: Option<String>,
    /// The API is named by a variable, which `gh` does not know.
    named: bool,
}

impl Base {
    /// The API for a repository, by the variables of the environment.
    ///
    /// # Errors
    /// [`ForgeError::Address`] where a token would go over the network in the clear.
    pub(super) fn of(
        place: &Place,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ForgeError> {
        let own = match place.host.as_str() {
            DEFAULT_HOST => DEFAULT_API.to_owned(),
            host => format!("https://{host}/api/v3"),
        };
        let named = variable("GITHUB_API_URL").map(|url| url.trim_end_matches('/').to_owned());
        let named = named.filter(|url| *url != own);
        if let Some(url) = named.as_ref().filter(|url| !is_private(url)) {
            return Err(ForgeError::Address(url.clone()));
        }
        let names = match (&named, place.host.as_str()) {
            (Some(_), _) | (None, DEFAULT_HOST) => TOKENS,
            (None, _) => OTHER_TOKENS,
        };
        let token = names
            .iter()
            .find_map(|name| Some((name, variable(name)?.trim().to_owned())));
        let who = match &token {
            Some((name, _)) => format!("the token of {name}"),
            None => format!("somebody without a token ({})", names[0]),
        };
        Ok(Self {
            host: match &named {
                Some(url) => host_of(url).to_owned(),
                None => place.host.clone(),
            },
            named: named.is_some(),
            api: named.unwrap_or(own),
            token: token.map(|(_, token)| token),
            who,
        })
    }

    /// What carries the requests: `gh` where it is logged in, else this program.
    ///
    /// # Errors
    /// What stands in the way of either.
    pub(super) fn transport(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Box<dyn Transport>, ForgeError> {
        if !self.named
            && let Some(gh) = Gh::logged_in(&self.host, variable("PATH"))
        {
            return Ok(Box::new(gh));
        }
        let roots = variable("SSL_CERT_FILE");
        let http = Http::new(self.api.clone(), self.token.clone(), roots)?;
        Ok(Box::new(http))
    }

    /// Whether requests of ours carry a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Whether nobody on the way can read what is sent there.
fn is_private(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return url.starts_with("https://");
    };
    let name = rest.split('/').next().unwrap_or_default();
    let name = match name.strip_prefix('[') {
        Some(name) => name.split(']').next().unwrap_or_default(),
        None => name.split(':').next().unwrap_or_default(),
    };
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(host: &str, variables: &[(&str, &str)]) -> Result<Base, ForgeError> {
        let place = Place {
            host: host.to_owned(),
            owner: "owner".to_owned(),
            name: "repo".to_owned(),
        };
        Base::of(&place, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ALL: &[(&str, &str)] = &[("GITHUB_TOKEN", "hub"), ("GH_ENTERPRISE_TOKEN", "other")];

    #[test]
    fn each_forge_has_its_own_api_and_gets_no_token_of_another() {
        let hub = base("github.com", ALL).unwrap();
        assert_eq!(hub.api, "https://api.github.com");
        assert_eq!(hub.token.as_deref(), Some("hub"));
        let other = base("forge.example", ALL).unwrap();
        assert_eq!(other.api, "https://forge.example/api/v3");
        assert_eq!(other.token.as_deref(), Some("other"));
        let stranger = base("evil.example", &ALL[..1]).unwrap();
        assert_eq!(stranger.token, None);
    }

    #[test]
    fn an_api_that_is_named_wins_and_takes_the_token_with_it() {
        let url = ("GITHUB_API_URL", "https://forge.example/api/v3/");
        let named = base("github.com", &[url, ("GH_TOKEN", " first\n"), ALL[0]]).unwrap();
        assert_eq!(named.api, "https://forge.example/api/v3");
        assert_eq!(named.host, "forge.example");
        assert_eq!(named.token.as_deref(), Some("first"));
        assert!(named.named);
        let same = ("GITHUB_API_URL", "https://api.github.com");
        assert!(!base("github.com", &[same]).unwrap().named);
    }

    #[test]
    fn no_token_goes_over_the_network_in_the_clear() {
        for good in [
            "http://127.0.0.1:80",
            "http://localhost/x",
            "http://[::1]:9/",
        ] {
            base("github.com", &[("GITHUB_API_URL", good)]).unwrap();
        }
        for bad in [
            "http://forge.example",
            "http://127.0.0.1.evil.example",
            "ftp://localhost",
            "forge.example",
        ] {
            let refused = base("github.com", &[("GITHUB_API_URL", bad)]);
            assert_eq!(refused, Err(ForgeError::Address(bad.to_owned())));
        }
    }
}
