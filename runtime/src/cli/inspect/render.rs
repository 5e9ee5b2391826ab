//! An inspection as a page for people. Pure: text from values.

use wharf_host::{Export, Grant, Import, Inspection, Standing};

use crate::cli::table::{Align, columns, printable};

/// The file in a few lines, a table of exports, one of imports, and what Wharf would say.
pub fn page(file: &str, inspection: &Inspection) -> String {
    let Inspection { digest, size, initial_memory, exports, imports, problems } = inspection;
    let mut text = format!("{}\n", printable(file));
    text.push_str(&format!("  sha256  {digest}\n"));
    text.push_str(&format!("  size    {size} bytes\n"));
    text.push_str(&format!("  memory  {initial_memory} bytes at the start\n"));
    text.push('\n');
    text.push_str(&table_of_exports(exports));
    text.push('\n');
    text.push_str(&table_of_imports(imports));
    text.push('\n');
    if problems.is_empty() {
        text.push_str(&format!("Wharf can run it{}.\n", needed(imports)));
    } else {
        text.push_str("Wharf would refuse it:\n");
        text.extend(problems.iter().map(|problem| format!("  - {}\n", printable(&problem.to_string()))));
    }
    text
}

fn table_of_exports(exports: &[Export]) -> String {
    let heads = [("EXPORT", Align::Left), ("WHARF", Align::Left)];
    let rows = exports.iter().map(|export| {
        let use_of_it = if export.called { "calls it" } else { "ignores it" };
        [printable(&export.name), use_of_it.to_owned()]
    });
    columns(heads, rows.collect())
}

fn table_of_imports(imports: &[Import]) -> String {
    let heads = [("IMPORT", Align::Left), ("NEEDS", Align::Left)];
    let rows = imports.iter().map(|import| [printable(&import.name), needs(import.standing)]);
    columns(heads, rows.collect())
}

fn needs(standing: Standing) -> String {
    match standing {
        Standing::Free => "nothing".into(),
        Standing::NeedsGrant { grant } => grant.in_config().into(),
        Standing::IdleWithoutGrant { grant } => {
            format!("nothing, but reaches nothing without {} = […]", grant.key())
        }
        Standing::ReachesNothing => "nothing, and reaches nothing".into(),
        Standing::OtherVersion { expected } => format!("refused: expected version {expected}"),
        Standing::Unknown => "refused: Wharf does not provide it".into(),
    }
}

/// The grants without which it does not link, as a receiver's config has them.
fn needed(imports: &[Import]) -> String {
    let mut grants: Vec<Grant> = Vec::new();
    for import in imports {
        if let Standing::NeedsGrant { grant } = import.standing
            && !grants.contains(&grant)
        {
            grants.push(grant);
        }
    }
    if grants.is_empty() {
        return String::new();
    }
    let grants: Vec<String> = grants.iter().map(Grant::to_string).collect();
    format!(" if its config has {}", grants.join(" and "))
}
