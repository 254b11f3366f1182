//! The page's words. The English ones are those published clients look for; the others are translations of ours and not
//! seen on a server: what matters is that a client which knows only the English ones notices.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use causeway_protocol::Secret;

/// What a page says.
pub(super) enum Content {
    Challenge {
        password: Secret,
        /// How long it is good; none when it may be used again and again.
        minutes: Option<u32>,
    },
    Full,
    NoPermission,
}

impl Content {
    /// For the journal.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::Challenge { minutes: Some(_), .. } => "challenge",
            Self::Challenge { minutes: None, .. } => "permanent challenge",
            Self::Full => "cache full",
            Self::NoPermission => "no permission",
        }
    }
}

/// The page in one language.
pub(crate) struct Language {
    code: &'static str,
    title: &'static str,
    thumbprint: &'static str,
    /// Before the challenge.
    challenge: &'static str,
    /// With `{}` for the minutes.
    once: &'static str,
    again: &'static str,
    full: &'static str,
    no_permission: &'static str,
}

/// Sent with status 500 and no other word when the RA's certificates are no good.
pub(crate) const SERVER_ERROR: &str = "<!DOCTYPE html><html><head><title>500 - Internal server error.</title></head><body><div \
     id=\"header\"><h1>Server Error</h1></div><div class=\"content-container\"><h2>500 - Internal server error.</h2><h3>There is a \
     problem with the resource you are looking for, and it cannot be displayed.</h3></div></body></html>";

pub(crate) static LANGUAGES: [Language; 10] = [
    Language {
        code: "en",
        title: "Network Device Enrollment Service",
        thumbprint: "The thumbprint (hash value) for the CA certificate is:",
        challenge: "The enrollment challenge password is:",
        once: "This password can be used only once and will expire within {} minutes.",
        again: "This password can be used multiple times and will not expire.",
        full: "The password cache is full.",
        no_permission: "You do not have sufficient permission to enroll with SCEP.  Please contact your system administrator.",
    },
    Language {
        code: "de",
        title: "Registrierungsdienst für Netzwerkgeräte",
        thumbprint: "Der Fingerabdruck (Hashwert) des Zertifizierungsstellenzertifikats lautet:",
        challenge: "Das Abfragekennwort für die Registrierung lautet:",
        once: "Dieses Kennwort kann nur einmal verwendet werden und läuft in {} Minuten ab.",
        again: "Dieses Kennwort kann mehrfach verwendet werden und läuft nicht ab.",
        full: "Der Kennwortcache ist voll.",
        no_permission: "Sie verfügen nicht über ausreichende Berechtigungen für die Registrierung mit SCEP.",
    },
    Language {
        code: "fr",
        title: "Service d’inscription de périphériques réseau",
        thumbprint: "L’empreinte numérique (valeur de hachage) du certificat de l’autorité de certification est :",
        challenge: "Le mot de passe de défi d’inscription est :",
        once: "Ce mot de passe ne peut être utilisé qu’une seule fois et expirera dans {} minutes.",
        again: "Ce mot de passe peut être utilisé plusieurs fois et n’expire pas.",
        full: "Le cache des mots de passe est plein.",
        no_permission: "Vous ne disposez pas des autorisations suffisantes pour l’inscription avec SCEP.",
    },
    Language {
        code: "es",
        title: "Servicio de inscripción de dispositivos de red",
        thumbprint: "La huella digital (valor hash) del certificado de la entidad de certificación es:",
        challenge: "La contraseña de desafío de inscripción es:",
        once: "Esta contraseña solo se puede usar una vez y expirará en {} minutos.",
        again: "Esta contraseña se puede usar varias veces y no expira.",
        full: "La caché de contraseñas está llena.",
        no_permission: "No tiene permisos suficientes para inscribirse con SCEP.",
    },
    Language {
        code: "it",
        title: "Servizio Registrazione dispositivi di rete",
        thumbprint: "L'identificazione personale (valore hash) del certificato CA è:",
        challenge: "La password di verifica per la registrazione è:",
        once: "Questa password può essere utilizzata una sola volta e scadrà entro {} minuti.",
        again: "Questa password può essere utilizzata più volte e non scade.",
        full: "La cache delle password è piena.",
        no_permission: "Autorizzazioni insufficienti per la registrazione con SCEP.",
    },
    Language {
        code: "pt",
        title: "Serviço de Registro de Dispositivo de Rede",
        thumbprint: "A impressão digital (valor de hash) do certificado da autoridade de certificação é:",
        challenge: "A senha de desafio de registro é:",
        once: "Esta senha pode ser usada apenas uma vez e expirará em {} minutos.",
        again: "Esta senha pode ser usada várias vezes e não expira.",
        full: "O cache de senhas está cheio.",
        no_permission: "Você não tem permissão suficiente para se registrar com o SCEP.",
    },
    Language {
        code: "nl",
        title: "Registratieservice voor netwerkapparaten",
        thumbprint: "De vingerafdruk (hashwaarde) van het CA-certificaat is:",
        challenge: "Het vraagwachtwoord voor de registratie is:",
        once: "Dit wachtwoord kan slechts één keer worden gebruikt en verloopt over {} minuten.",
        again: "Dit wachtwoord kan meerdere keren worden gebruikt en verloopt niet.",
        full: "De wachtwoordcache is vol.",
        no_permission: "U hebt onvoldoende machtigingen om met SCEP te registreren.",
    },
    Language {
        code: "ja",
        title: "ネットワーク デバイス登録サービス",
        thumbprint: "CA 証明書の拇印 (ハッシュ値):",
        challenge: "登録チャレンジ パスワード:",
        once: "このパスワードは 1 回だけ使用でき、{} 分以内に有効期限が切れます。",
        again: "このパスワードは複数回使用でき、有効期限はありません。",
        full: "パスワード キャッシュがいっぱいです。",
        no_permission: "SCEP で登録するための十分なアクセス許可がありません。",
    },
    Language {
        code: "pl",
        title: "Usługa rejestracji urządzeń sieciowych",
        thumbprint: "Odcisk palca (wartość skrótu) certyfikatu urzędu certyfikacji:",
        challenge: "Hasło wezwania rejestracji:",
        once: "Tego hasła można użyć tylko raz i wygaśnie ono w ciągu {} min.",
        again: "Tego hasła można użyć wiele razy i nie wygasa ono.",
        full: "Pamięć podręczna haseł jest pełna.",
        no_permission: "Nie masz wystarczających uprawnień do rejestracji przy użyciu protokołu SCEP.",
    },
    Language {
        code: "zh",
        title: "网络设备注册服务",
        thumbprint: "CA 证书的指纹(哈希值)为:",
        challenge: "注册质询密码为:",
        once: "此密码只能使用一次，并将在 {} 分钟内过期。",
        again: "此密码可以多次使用，不会过期。",
        full: "密码缓存已满。",
        no_permission: "你没有足够的权限使用 SCEP 进行注册。",
    },
];

/// The language of this code.
pub(crate) fn language(code: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| language.code == code)
}

/// Every code, for messages.
pub(crate) fn languages() -> String {
    LANGUAGES.iter().map(|language| language.code).collect::<Vec<_>>().join(", ")
}

/// The page. Exactly one blank stands inside the bold tags, before and after: public clients count on it.
pub(super) fn render(language: &Language, content: &Content, ca: &[u8]) -> String {
    let Language { title, thumbprint, .. } = language;
    let body = match content {
        Content::Challenge { password, minutes } => {
            let life = match minutes {
                Some(minutes) => language.once.replace("{}", &minutes.to_string()),
                None => language.again.to_owned(),
            };
            format!(
                "<P> {thumbprint} <B> {} </B> <P> {} <B> {} </B> <P> {life} <P>",
                fingerprint(ca),
                language.challenge,
                password.expose()
            )
        }
        Content::Full => format!("<P> {} <P>", language.full),
        Content::NoPermission => format!("<P> {} <P>", language.no_permission),
    };
    format!(
        "<HTML><Head><Meta HTTP-Equiv=\"Content-Type\" Content=\"text/html; charset=UTF-16\"><Title>{title}</Title></Head><Body \
         BgColor=#FFFFFF><Font ID=locPageFont Face=\"Arial\"><Table Border=0 CellSpacing=0 CellPadding=4 Width=100% \
         BgColor=#008080><TR><TD><Font ID=locPageTitleFont Face=\"Arial\" Size=-1 Color=#FFFFFF>{title}</Font></TD></TR></Table>\
         {body}</Font></Body></HTML>"
    )
}

/// SHA-1 over the certificate in groups of eight digits.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, certificate);
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let groups: Vec<&str> = (0..digits.len()).step_by(8).map(|at| &digits[at..at + 8]).collect();
    groups.join(" ")
}
