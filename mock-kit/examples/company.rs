//! Prints a generated company: `cargo run -p causeway-mock-kit --example company -- [SEED] [USERS]`.

use causeway_mock_kit::world::{Company, CompanySpec};

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>().unwrap_or(1));
    let default = CompanySpec::default();
    let spec = CompanySpec {
        seed: numbers.next().map_or(default.seed, u64::from),
        users: numbers.next().map_or(default.users, |users| users as usize),
        domain: default.domain,
    };
    let started = std::time::Instant::now();
    let company = Company::generate(&spec);
    let took = started.elapsed();
    for person in company.people.iter().take(60) {
        let path: Vec<&str> = company.ou_path(person.ou).iter().map(|ou| ou.name.as_str()).collect();
        println!(
            "{:5} {:20} {:34} {:36} {:28} {:?} {}",
            person.index,
            person.login,
            person.display_name,
            person.mail,
            person.title,
            person.state,
            path.join("/")
        );
    }
    for group in company.groups.iter().take(90) {
        println!("{:?} {:?} {:40} {} members", group.kind, group.scope, group.name, group.members.len());
    }
    println!(
        "{} people, {} groups, {} units, {} devices in {took:?}",
        company.people.len(),
        company.groups.len(),
        company.ous.len(),
        company.devices.len()
    );
}
