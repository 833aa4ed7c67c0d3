use undercroft_sim::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let bytes = std::fs::read(&a[1]).unwrap();
    let parsed = undercroft_model::inventory::parse(&a[1], &bytes);
    let inv = parsed.inventory.expect("inv");
    let mut o = RehearseOptions::default();
    o.faults = a[2].parse().unwrap();
    o.nodes = a[3].parse().ok();
    let from: u64 = a[4].parse().unwrap();
    let to: u64 = a[5].parse().unwrap();
    let t = std::time::Instant::now();
    if from == to {
        o.seed = from;
        o.trace = a.len() > 6;
        let r = rehearse(&inv, &o).unwrap();
        for l in &r.trace { println!("{l}"); }
        println!("{}", r.report);
        println!("digest {} entries {} bytes {} violation {:?}", r.digest, r.entries, r.journal_bytes, r.violation);
    } else {
        let r = run_seeds(&inv, &o, from..=to, &mut |_| {}).unwrap();
        println!("{} seeds {} entries {:?}", r.seeds, r.entries, r.faults);
        if let Some(f) = r.failed { println!("{f}"); }
    }
    eprintln!("{:?}", t.elapsed());
}
