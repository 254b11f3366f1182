//! The words companies are made of. Changing an entry changes every generated company: add at the ends only, and only
//! in a release that says so.

use serde::Serialize;

/// An office.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct Location {
    /// City, which is also the name of its unit.
    pub city: &'static str,
    /// Country in English.
    pub country: &'static str,
    /// Country, two letters (ISO 3166-1).
    pub country_code: &'static str,
    /// Street and number.
    pub street: &'static str,
    /// Postal code.
    pub postal_code: &'static str,
    /// Start of desk phone numbers, from ranges kept free for fiction where the country has some.
    pub phone_prefix: &'static str,
    /// Preferred language (RFC 5646).
    pub language: &'static str,
    /// Which of [`CULTURES`] most names come from.
    #[serde(skip)]
    pub(super) culture: usize,
}

pub(super) static LOCATIONS: [Location; 8] = [
    Location {
        city: "London",
        country: "United Kingdom",
        country_code: "GB",
        street: "14 Harbour Row",
        postal_code: "EC2A 9ZZ",
        phone_prefix: "+44 20 7946",
        language: "en-GB",
        culture: 0,
    },
    Location {
        city: "Berlin",
        country: "Germany",
        country_code: "DE",
        street: "Am Kanal 7",
        postal_code: "10999",
        phone_prefix: "+49 30 23125",
        language: "de-DE",
        culture: 1,
    },
    Location {
        city: "São Paulo",
        country: "Brazil",
        country_code: "BR",
        street: "Rua das Palmeiras 310",
        postal_code: "01226-010",
        phone_prefix: "+55 11 5550",
        language: "pt-BR",
        culture: 2,
    },
    Location {
        city: "Kraków",
        country: "Poland",
        country_code: "PL",
        street: "ul. Lipowa 4",
        postal_code: "30-702",
        phone_prefix: "+48 12 555",
        language: "pl-PL",
        culture: 3,
    },
    Location {
        city: "Austin",
        country: "United States",
        country_code: "US",
        street: "2200 Mesa Drive",
        postal_code: "78701",
        phone_prefix: "+1 512 555",
        language: "en-US",
        culture: 0,
    },
    Location {
        city: "Bengaluru",
        country: "India",
        country_code: "IN",
        street: "12 Lake View Road",
        postal_code: "560001",
        phone_prefix: "+91 80 5550",
        language: "en-IN",
        culture: 4,
    },
    Location {
        city: "Osaka",
        country: "Japan",
        country_code: "JP",
        street: "3-5 Nakanoshima",
        postal_code: "530-0005",
        phone_prefix: "+81 6 5550",
        language: "ja-JP",
        culture: 5,
    },
    Location {
        city: "Haifa",
        country: "Israel",
        country_code: "IL",
        street: "8 HaNamal Street",
        postal_code: "3303108",
        phone_prefix: "+972 4 555",
        language: "he-IL",
        culture: 6,
    },
];

/// Names of one culture. An entry in another script gives its Latin form after a bar.
pub(super) struct Culture {
    pub(super) given: &'static [&'static str],
    pub(super) surnames: &'static [&'static str],
}

#[rustfmt::skip]
pub(super) static CULTURES: [Culture; 13] = [
    Culture { // English-speaking
        given: &["Alice", "Amelia", "Arthur", "Ava", "Barbara", "Benjamin", "Bob", "Brian", "Callum", "Carol", "Charlotte", "Chloe", "Daniel", "David", "Deborah", "Dylan", "Edward", "Eleanor", "Ella", "Emily", "Ethan", "Evelyn", "Frank", "Freya", "George", "Grace", "Hannah", "Harry", "Helen", "Henry", "Imogen", "Isaac", "Jack", "James", "Jane", "Jessica", "John", "Joseph", "Karen", "Kevin", "Laura", "Liam", "Lily", "Linda", "Lucy", "Margaret", "Martin", "Mary", "Michael", "Mia", "Nancy", "Noah", "Oliver", "Olivia", "Oscar", "Patrick", "Paul", "Peter", "Rachel", "Rebecca", "Richard", "Robert", "Ruth", "Ryan", "Sarah", "Scott", "Simon", "Sophie", "Stephen", "Susan", "Thomas", "Victoria", "Walter", "William", "Zoe"],
        surnames: &["Adams", "Allen", "Anderson", "Baker", "Barnes", "Bell", "Bennett", "Brooks", "Brown", "Campbell", "Carter", "Clark", "Collins", "Cook", "Cooper", "Cox", "Davies", "Dixon", "Edwards", "Evans", "Fisher", "Foster", "Fox", "Gibson", "Graham", "Grant", "Gray", "Green", "Griffiths", "Hall", "Hamilton", "Harris", "Harrison", "Hill", "Holmes", "Howard", "Hughes", "Hunt", "Jackson", "James", "Johnson", "Jones", "Kelly", "Kennedy", "King", "Knight", "Lewis", "Lloyd", "MacDonald", "Marshall", "Mason", "Matthews", "McKenzie", "Miller", "Mitchell", "Moore", "Morgan", "Morris", "Murphy", "Murray", "Nelson", "O'Connor", "O'Neill", "Owen", "Palmer", "Parker", "Phillips", "Powell", "Price", "Reid", "Reynolds", "Richards", "Roberts", "Robinson", "Rogers", "Rose", "Russell", "Scott", "Shaw", "Simpson", "Smith", "Stevens", "Stewart", "Taylor", "Thomas", "Thompson", "Turner", "Walker", "Walsh", "Ward", "Watson", "White", "Williams", "Wilson", "Wood", "Wright", "Young"],
    },
    Culture { // German-speaking
        given: &["Anja", "Annika", "Bernd", "Björn", "Christian", "Claudia", "Dirk", "Elke", "Emil", "Erik", "Florian", "Franziska", "Frieda", "Gisela", "Günter", "Hanna", "Heike", "Heinz", "Ingrid", "Jan", "Jonas", "Jörg", "Julia", "Jürgen", "Karin", "Käthe", "Klaus", "Lena", "Leon", "Lukas", "Marie", "Markus", "Matthias", "Monika", "Niklas", "Petra", "Ralf", "Renate", "Sabine", "Sebastian", "Sören", "Stefan", "Susanne", "Tobias", "Ulrike", "Ursula", "Uwe", "Volker", "Wolfgang", "Zoë"],
        surnames: &["Bauer", "Becker", "Böhm", "Braun", "Busch", "Dietrich", "Engel", "Fischer", "Frank", "Fuchs", "Graf", "Groß", "Günther", "Haas", "Hartmann", "Hoffmann", "Huber", "Jäger", "Kaiser", "Keller", "Klein", "Koch", "König", "Köhler", "Krämer", "Krause", "Krüger", "Kühn", "Lang", "Lehmann", "Lorenz", "Maier", "Meyer", "Möller", "Müller", "Neumann", "Otto", "Peters", "Pfeiffer", "Richter", "Roth", "Schäfer", "Schmidt", "Schneider", "Scholz", "Schröder", "Schulze", "Schwarz", "Seidel", "Sommer", "Thomas", "Vogel", "von der Heide", "Voigt", "Wagner", "Walter", "Weber", "Weiß", "Werner", "Winter", "Wolf", "Ziegler", "Zimmermann"],
    },
    Culture { // Iberian and Latin American
        given: &["Adriana", "Alejandro", "Ana", "André", "Antônio", "Beatriz", "Bruno", "Camila", "Carlos", "Carmen", "César", "Cláudia", "Daniela", "Diego", "Eduardo", "Elena", "Fernanda", "Fernando", "Gabriela", "Gonçalo", "Hugo", "Inés", "Isabel", "João", "Joaquín", "Jorge", "José", "Juan", "Juliana", "Larissa", "Letícia", "Lucía", "Luís", "Luiza", "Manuel", "Marcela", "María", "Mateus", "Miguel", "Núria", "Pablo", "Paula", "Pedro", "Rafael", "Raquel", "Ricardo", "Rodrigo", "Sofía", "Thiago", "Vitória"],
        surnames: &["Almeida", "Álvarez", "Alves", "Araújo", "Barbosa", "Cardoso", "Carvalho", "Castillo", "Castro", "Costa", "da Silva", "de Souza", "Díaz", "Dias", "dos Santos", "Fernandes", "Fernández", "Ferreira", "Flores", "García", "Gomes", "Gómez", "Gonçalves", "González", "Gutiérrez", "Hernández", "Jiménez", "Lima", "Lopes", "López", "Marques", "Martínez", "Martins", "Medina", "Mendes", "Molina", "Morales", "Moreira", "Muñoz", "Navarro", "Nunes", "Núñez", "Oliveira", "Ortiz", "Peña", "Pereira", "Pérez", "Pinto", "Ramírez", "Ramos", "Ribeiro", "Rocha", "Rodríguez", "Romero", "Ruiz", "Sánchez", "Soares", "Teixeira", "Torres", "Vargas", "Vázquez"],
    },
    Culture { // Polish and Czech
        given: &["Agnieszka", "Aleksandra", "Andrzej", "Barbara", "Bartosz", "Dorota", "Elżbieta", "Ewa", "Filip", "Grażyna", "Grzegorz", "Halina", "Iwona", "Jakub", "Jiří", "Joanna", "Kamil", "Katarzyna", "Krzysztof", "Łukasz", "Maciej", "Magdalena", "Małgorzata", "Marcin", "Mateusz", "Michał", "Monika", "Ondřej", "Paweł", "Piotr", "Radosław", "Šárka", "Stanisław", "Tomáš", "Urszula", "Wojciech", "Zbigniew", "Zofia"],
        surnames: &["Adamczyk", "Baran", "Borkowski", "Čermák", "Chmielewski", "Dąbrowski", "Duda", "Dvořák", "Dudek", "Gajewski", "Głowacki", "Górski", "Grabowski", "Jabłoński", "Jankowski", "Jaworski", "Kaczmarek", "Kamiński", "Kowalczyk", "Kowalski", "Kozłowski", "Krawczyk", "Król", "Kwiatkowski", "Lewandowski", "Majewski", "Malinowski", "Mazur", "Michalski", "Novák", "Nowak", "Nowicki", "Olszewski", "Ostrowski", "Pawłowski", "Piotrowski", "Příhoda", "Rutkowski", "Sadowski", "Sikora", "Stępień", "Svoboda", "Szymański", "Tomaszewski", "Walczak", "Wiśniewski", "Wójcik", "Woźniak", "Wróbel", "Zając", "Zalewski", "Zawadzki", "Żak"],
    },
    Culture { // Indian
        given: &["Aarav", "Aditi", "Aditya", "Ananya", "Anil", "Anjali", "Arjun", "Arun", "Bhavna", "Deepak", "Divya", "Gaurav", "Geeta", "Harish", "Indira", "Ishaan", "Jaya", "Karthik", "Kavita", "Kiran", "Lakshmi", "Manish", "Meera", "Mohan", "Nandini", "Neha", "Nikhil", "Padma", "Pooja", "Pranav", "Priya", "Rahul", "Rajesh", "Rakesh", "Ravi", "Ritu", "Rohan", "Sandeep", "Sanjay", "Shreya", "Sneha", "Sunita", "Suresh", "Tara", "Uma", "Varun", "Vijay", "Vikram"],
        surnames: &["Agarwal", "Banerjee", "Bhat", "Bose", "Chakraborty", "Chandra", "Chatterjee", "Chopra", "Das", "Desai", "Deshpande", "Dutta", "Gandhi", "Ghosh", "Gupta", "Hegde", "Iyengar", "Iyer", "Jain", "Joshi", "Kapoor", "Kaur", "Khan", "Krishnan", "Kulkarni", "Kumar", "Malhotra", "Mehta", "Menon", "Mishra", "Mukherjee", "Nair", "Naidu", "Pandey", "Patel", "Patil", "Pillai", "Rao", "Reddy", "Roy", "Saxena", "Sen", "Shah", "Sharma", "Shetty", "Singh", "Srinivasan", "Subramanian", "Thakur", "Trivedi", "Varma", "Venkatesan", "Verma", "Yadav"],
    },
    Culture { // Japanese
        given: &["愛|Ai", "明|Akira", "彩|Aya", "千尋|Chihiro", "大輔|Daisuke", "恵美|Emi", "春香|Haruka", "陽翔|Haruto", "浩|Hiroshi", "一郎|Ichiro", "純|Jun", "和也|Kazuya", "健|Ken", "真|Makoto", "麻衣|Mai", "恵|Megumi", "美咲|Misaki", "直樹|Naoki", "玲奈|Rena", "亮|Ryo", "さくら|Sakura", "翔太|Shota", "拓也|Takuya", "結衣|Yui", "由美子|Yumiko", "優斗|Yuto"],
        surnames: &["青木|Aoki", "安藤|Ando", "藤田|Fujita", "後藤|Goto", "長谷川|Hasegawa", "橋本|Hashimoto", "林|Hayashi", "井上|Inoue", "石川|Ishikawa", "伊藤|Ito", "加藤|Kato", "木村|Kimura", "小林|Kobayashi", "松本|Matsumoto", "三浦|Miura", "森|Mori", "村上|Murakami", "中島|Nakajima", "中村|Nakamura", "小川|Ogawa", "岡田|Okada", "斎藤|Saito", "佐々木|Sasaki", "佐藤|Sato", "清水|Shimizu", "鈴木|Suzuki", "高橋|Takahashi", "田中|Tanaka", "渡辺|Watanabe", "山田|Yamada", "山口|Yamaguchi", "吉田|Yoshida"],
    },
    Culture { // Hebrew, right to left
        given: &["אביגיל|Avigail", "אורי|Uri", "איתן|Eitan", "דוד|David", "דנה|Dana", "חנה|Hanna", "טל|Tal", "יעל|Yael", "יוסף|Yosef", "מאיה|Maya", "משה|Moshe", "נועה|Noa", "עומר|Omer", "רון|Ron", "שירה|Shira", "תמר|Tamar"],
        surnames: &["אברהם|Avraham", "אזולאי|Azoulay", "ביטון|Biton", "גבאי|Gabay", "דהן|Dahan", "חדד|Hadad", "כהן|Cohen", "כץ|Katz", "לוי|Levi", "מזרחי|Mizrahi", "פרידמן|Friedman", "פרץ|Peretz", "רוזן|Rosen", "שפירא|Shapira"],
    },
    Culture { // Arabic, right to left
        given: &["أحمد|Ahmad", "فاطمة|Fatima", "يوسف|Yusuf", "ليلى|Layla", "مريم|Maryam", "عمر|Omar", "نور|Nour", "سارة|Sara", "طارق|Tariq", "زينب|Zaynab"],
        surnames: &["حداد|Haddad", "خوري|Khoury", "منصور|Mansour", "ناصر|Nasser", "قاسم|Qasim", "صالح|Saleh"],
    },
    Culture { // Nordic
        given: &["Åsa", "Astrid", "Freyja", "Håkon", "Jón", "Linnéa", "Øystein", "Søren", "Þóra"],
        surnames: &["Åkesson", "Bjørnsson", "Gunnarsdóttir", "Håkansson", "Lindström", "Nielsen", "Sørensen", "Þorsteinsson"],
    },
    Culture { // Turkish
        given: &["Ayşe", "Çağla", "Emre", "Gökhan", "İpek", "Mehmet", "Pınar", "Özlem"],
        surnames: &["Çelik", "Demir", "Erdoğdu", "Işık", "Kaya", "Öztürk", "Şahin", "Yıldız"],
    },
    Culture { // Greek
        given: &["Αγγελική|Angeliki", "Γιώργος|Giorgos", "Ελένη|Eleni", "Νίκος|Nikos"],
        surnames: &["Αντωνίου|Antoniou", "Δημητρίου|Dimitriou", "Νικολάου|Nikolaou", "Παπαδόπουλος|Papadopoulos"],
    },
    Culture { // Ukrainian
        given: &["Богдан|Bohdan", "Ганна|Hanna", "Олена|Olena", "Тарас|Taras", "Юлія|Yuliia"],
        surnames: &["Бондаренко|Bondarenko", "Коваленко|Kovalenko", "Мельник|Melnyk", "Шевченко|Shevchenko"],
    },
    Culture { // Vietnamese, in the order the office's directory uses
        given: &["Đức", "Hạnh", "Minh", "Ngọc", "Thảo"],
        surnames: &["Đặng", "Nguyễn", "Phạm", "Trần"],
    },
];

/// Which cultures every office may have colleagues from besides its own.
pub(super) const GUESTS: [std::ops::Range<usize>; 2] = [0..5, 7..13];

/// A department with its titles, the head's first.
pub(super) struct Department {
    pub(super) name: &'static str,
    pub(super) titles: &'static [&'static str],
}

#[rustfmt::skip]
pub(super) static DEPARTMENTS: [Department; 8] = [
    Department { name: "Engineering", titles: &["Director of Engineering", "Staff Engineer", "Software Engineer", "Test Engineer", "Site Reliability Engineer", "Engineering Manager"] },
    Department { name: "Sales", titles: &["Regional Sales Director", "Account Executive", "Account Manager", "Sales Engineer", "Sales Assistant"] },
    Department { name: "Finance", titles: &["Finance Director", "Controller", "Accountant", "Payroll Specialist", "Buyer"] },
    Department { name: "Human Resources", titles: &["Head of People", "Recruiter", "People Partner", "Training Coordinator"] },
    Department { name: "IT Operations", titles: &["Head of IT", "System Administrator", "Network Engineer", "Service Desk Analyst", "Security Analyst"] },
    Department { name: "Customer Support", titles: &["Support Manager", "Support Engineer", "Customer Success Manager", "Support Agent"] },
    Department { name: "Research & Development", titles: &["Head of Research", "Research Scientist", "Laboratory Technician", "Data Scientist"] },
    Department { name: "Logistics", titles: &["Plant Manager", "Warehouse Lead", "Driver", "Dispatcher", "Forklift Operator"] },
];

/// How many of the departments each location has.
pub(super) const DEPARTMENTS_PER_LOCATION: usize = 6;

#[rustfmt::skip]
pub(super) static TEAM_WORDS: [&str; 24] = [
    "Albatross", "Badger", "Cormorant", "Dolphin", "Egret", "Falcon", "Gannet", "Heron", "Ibis", "Jackdaw", "Kestrel", "Lynx",
    "Marten", "Nightjar", "Osprey", "Puffin", "Quail", "Raven", "Sandpiper", "Tern", "Urchin", "Vole", "Wren", "Yak",
];

#[rustfmt::skip]
pub(super) static PASSWORD_WORDS: [&str; 64] = [
    "Amber", "Anchor", "Apple", "Arrow", "Autumn", "Basket", "Beacon", "Birch", "Bridge", "Bronze", "Button", "Cable", "Candle", "Canyon", "Castle", "Cedar",
    "Chalk", "Cherry", "Cinder", "Clover", "Cobalt", "Comet", "Copper", "Coral", "Cotton", "Crystal", "Dapple", "Delta", "Drift", "Ember", "Feather", "Fennel",
    "Flint", "Forest", "Garnet", "Ginger", "Glacier", "Granite", "Harbor", "Hazel", "Indigo", "Island", "Ivory", "Jasper", "Juniper", "Kettle", "Lagoon", "Lantern",
    "Lemon", "Linen", "Magnet", "Maple", "Marble", "Meadow", "Mortar", "Nutmeg", "Oasis", "Orchid", "Pebble", "Pepper", "Quartz", "Ribbon", "River", "Saffron",
];

/// Somebody every company of enough people has, for demos, tests and hard cases.
pub(super) struct CastMember {
    pub(super) given: &'static str,
    pub(super) surname: &'static str,
    /// `None`: given name and surname.
    pub(super) display: Option<&'static str>,
    pub(super) login: &'static str,
    pub(super) mail: &'static str,
    pub(super) location: usize,
    pub(super) department: usize,
    pub(super) title: &'static str,
    pub(super) state: super::PersonState,
}

/// A member of the cast whose name is plain.
const fn plain(
    given: &'static str,
    surname: &'static str,
    login: &'static str,
    mail: &'static str,
    place: (usize, usize),
    title: &'static str,
    state: super::PersonState,
) -> CastMember {
    CastMember {
        given,
        surname,
        display: None,
        login,
        mail,
        location: place.0,
        department: place.1,
        title,
        state,
    }
}

/// A member of the cast whose common name needs care in DNs, filters, XML or on screen.
const fn hard(
    names: (&'static str, &'static str),
    display: &'static str,
    login: &'static str,
    mail: &'static str,
    place: (usize, usize),
    title: &'static str,
) -> CastMember {
    CastMember {
        given: names.0,
        surname: names.1,
        display: Some(display),
        login,
        mail,
        location: place.0,
        department: place.1,
        title,
        state: super::PersonState::Active,
    }
}

#[rustfmt::skip]
pub(super) static CAST: [CastMember; 22] = [
    plain("Alice", "Smith", "asmith", "alice.smith", (0, 0), "Software Engineer", super::PersonState::Active),
    plain("Grace", "Okafor", "gokafor", "grace.okafor", (0, 2), "Chief Executive Officer", super::PersonState::Active),
    plain("Bob", "Jones", "bjones", "bob.jones", (0, 1), "Account Executive", super::PersonState::Active),
    plain("Derek", "Doyle", "ddoyle", "derek.doyle", (0, 1), "Account Manager", super::PersonState::Disabled),
    plain("Erin", "Fairchild", "efairchild", "erin.fairchild", (0, 2), "Accountant", super::PersonState::Expired),
    plain("Priya", "Raman", "praman", "priya.raman", (0, 0), "Test Engineer", super::PersonState::PasswordExpired),
    plain("Mona", "Castle", "mcastle", "mona.castle", (0, 3), "Recruiter", super::PersonState::MustChange),
    plain("Hugo", "Nightingale", "hnightingale", "hugo.nightingale", (0, 4), "Service Desk Analyst", super::PersonState::HoursDenied),
    plain("Tom", "Becker", "tbecker", "tom.becker", (1, 1), "Account Executive", super::PersonState::Active),
    hard(("Conor", "O'Brien"), "Conor O'Brien", "cobrien", "conor.obrien", (0, 5), "Support Engineer"),
    hard(("Robert", "Smith"), "Smith, Robert", "rsmith", "robert.smith", (4, 1), "Sales Engineer"),
    hard(("José", "Núñez"), "José (Pepe) Núñez", "jnunez", "jose.nunez", (2, 2), "Controller"),
    hard(("William", "Turner"), "William \"Bill\" Turner", "wturner", "william.turner", (4, 4), "Network Engineer"),
    hard(("Jürgen", "Groß"), "Jürgen Groß", "jgross", "juergen.gross", (1, 2), "Buyer"),
    hard(("יעל", "כהן"), "יעל כהן", "ycohen", "yael.cohen", (7, 2), "Finance Director"),
    hard(("ليلى", "خوري"), "ليلى خوري", "lkhoury", "layla.khoury", (7, 3), "People Partner"),
    hard(("太郎", "山田"), "山田 太郎", "tyamada", "taro.yamada", (6, 2), "Controller"),
    hard(("Ann", "Back\\Slash"), "Ann Back\\Slash", "abackslash", "ann.backslash", (4, 5), "Support Agent"),
    hard(("Lee", "Hash"), "#1 Lee; a+b=c <R&D>*", "lhash", "lee.hash", (4, 0), "Test Engineer"),
    hard(("Maximiliane", "von Hohenberg-Lichtenstein"), "Maximiliane Friederike Charlotte von Hohenberg-Lichtenstein zu W", "mvonhohenberg", "maximiliane.von.hohenberg", (1, 3), "Head of People"),
    hard(("Αγγελική", "Παπαδόπουλος"), "Αγγελική Παπαδόπουλος", "apapadopoulos", "angeliki.papadopoulos", (1, 5), "Customer Success Manager"),
    hard(("Nguyễn", "Thị Ánh"), "Nguyễn Thị Ánh", "nthianh", "nguyen.thi.anh", (6, 6), "Data Scientist"),
];
