//! What a start of a job would do.

use std::fmt::Write;

use millpond::inspect::{OperatorPlan, PlanReport, StartPlan};

use super::{add, align_right, counted, facts, row, shown, table};

/// The plan of a job that was asked.
pub(crate) fn plan(report: &PlanReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    let asked = format!("{} (millpond {})", report.command.join(" "), report.version);
    row(&mut facts, "asked", &shown(&asked, 200));
    if let Some(plan) = &report.plan {
        beginning(&mut facts, plan);
    }
    let outcome = match (&report.refused, &report.plan) {
        (Some(why), _) => format!("would be refused: {}", shown(why, 400)),
        (None, Some(plan)) if !report.sound => {
            format!("would be refused for {}", counted(plan.problems.len() as u64, "problem", "problems"))
        }
        _ => "the job can start".to_owned(),
    };
    row(&mut facts, "a start", &outcome);
    add(&mut page, &facts);
    if let Some(plan) = &report.plan {
        operators(&mut page, plan);
        streams(&mut page, plan);
        settings(&mut page, plan);
        problems(&mut page, plan);
    }
    page
}

fn beginning(facts: &mut comfy_table::Table, plan: &StartPlan) {
    let begins = match (plan.checkpoint, plan.batch) {
        (Some(checkpoint), Some(batch)) => {
            format!("at checkpoint {checkpoint}, which is after batch {batch}")
        }
        _ if plan.fresh => "with a new store".to_owned(),
        _ => "without a checkpoint, at the first batch".to_owned(),
    };
    row(facts, "begins", &begins);
    for passed in &plan.walked_back {
        row(facts, "", &format!("passes over checkpoint {}: {}", passed.checkpoint, shown(&passed.why, 200)));
    }
    let replay = match plan.replay[..] {
        [] => "computes nothing again".to_owned(),
        [first, .., last] => {
            let batches = counted(plan.replay.len() as u64, "batch", "batches");
            format!("computes {batches} again ({first} to {last})")
        }
        [only] => format!("computes 1 batch again ({only})"),
    };
    row(facts, "", &replay);
}

fn operators(page: &mut String, plan: &StartPlan) {
    let mut table = table(&["state", "becomes", "keys", "stored", "in the job"]);
    for operator in &plan.operators {
        table.add_row([
            shown(&operator.operator, 60),
            becomes(operator),
            operator.keys.to_string(),
            operator.stored.as_deref().map_or(String::new(), |stored| shown(stored, 80)),
            operator.asked.as_deref().map_or(String::new(), |asked| shown(asked, 80)),
        ]);
    }
    align_right(&mut table, &[2]);
    if !plan.operators.is_empty() {
        add(page, &table);
    }
}

fn becomes(operator: &OperatorPlan) -> String {
    let renamed = operator.was.as_ref().map(|was| format!(", was {}", shown(was, 40)));
    let migrated = if operator.migrated { ", migrated" } else { "" };
    format!("{}{}{migrated}", operator.outcome, renamed.unwrap_or_default())
}

fn streams(page: &mut String, plan: &StartPlan) {
    let mut table = table(&["stream", "becomes", "pending blocks", "batches computed again"]);
    for stream in &plan.streams {
        let numbers = [stream.pending_blocks, stream.replayed_batches].map(|number| number.to_string());
        table.add_row([&shown(&stream.stream, 60), &stream.outcome, &numbers[0], &numbers[1]]);
    }
    align_right(&mut table, &[2, 3]);
    add(page, &table);
}

fn settings(page: &mut String, plan: &StartPlan) {
    let mut table = table(&["setting", "before", "now"]);
    for setting in &plan.settings {
        table.add_row([&setting.setting, &setting.before, &setting.now]);
    }
    if !plan.settings.is_empty() {
        add(page, &table);
    }
}

fn problems(page: &mut String, plan: &StartPlan) {
    for (at, problem) in plan.problems.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        let _ = writeln!(page, "{gap}problem: {}", shown(problem, 1_000));
    }
}
