//! Periods, percentiles and charts.

use control_plane_domain::rollup::{Grain, bin_of};
use control_plane_domain::time::from_unix_ms;

use super::*;

/// Minutes after a midnight.
fn at(minutes: i64) -> Timestamp {
    from_unix_ms(1_795_046_400_000 + minutes * 60_000).unwrap()
}

fn sum(figure: Figure, minutes: i64, subject: &str, count: i64, total: i64) -> Sum {
    let amount = Amount::new(count, total);
    Sum { figure, bucket: at(minutes), subject: subject.to_owned(), amount }
}

fn show(span: &Span, sums: Vec<Sum>, waiting: &[Waiting]) -> Overview {
    Tally::of(span, sums, waiting).show(span, Chart { labels: vec![], data: vec![] })
}

#[test]
fn a_window_ends_with_the_minute_that_is_now() {
    let now = at(10) + chrono::Duration::milliseconds(30_500);
    for (window, length, step) in [
        (Window::QuarterHour, 15, Grain::Minute),
        (Window::Hour, 60, Grain::Minute),
        (Window::SixHours, 360, Grain::Minute),
        (Window::Day, 1440, Grain::Hour),
        (Window::Week, 7 * 1440, Grain::Day),
        (Window::Month, 30 * 1440, Grain::Day),
    ] {
        let span = Span::new(window, None, None, now).unwrap();
        assert_eq!((span.from, span.to, span.step), (at(11 - length), at(11), step));
    }
}

#[test]
fn both_ends_can_be_said_and_decide_the_steps() {
    let now = at(100_000);
    for (length, step) in [
        (360, Grain::Minute),
        (361, Grain::Hour),
        (48 * 60, Grain::Hour),
        (48 * 60 + 1, Grain::Day),
    ] {
        let span = Span::new(Window::Hour, Some(at(5)), Some(at(5 + length)), now).unwrap();
        assert_eq!((span.from, span.to, span.step), (at(5), at(5 + length), step));
    }
    let ended = Span::new(Window::Hour, None, Some(at(500)), now).unwrap();
    assert_eq!((ended.from, ended.to), (at(440), at(500)));
    let begun = Span::new(Window::Hour, Some(at(0)), None, now).unwrap();
    assert_eq!((begun.from, begun.to), (at(0), now));
    assert_eq!(Span::new(Window::Hour, Some(at(5)), Some(at(5)), now), Err(SpanFault::Backwards));
    let ages = Span::new(Window::Hour, Some(Timestamp::UNIX_EPOCH), None, now);
    assert_eq!(ages, Err(SpanFault::TooLong));
}

#[test]
fn every_step_has_a_point_also_when_nothing_happened() {
    let span = Span::new(Window::QuarterHour, Some(at(3)), Some(at(7)), at(7)).unwrap();

    let shown = show(&span, vec![sum(Figure::Created, 5, "", 2, 0)], &[]);

    assert_eq!(shown.charts.run_volume.data, [0, 0, 2, 0]);
    assert_eq!(shown.charts.run_volume.labels[0], "2026-11-19T00:03:00.000Z");
    assert_eq!(shown.charts.success_rate.data, [0.0; 4]);
    assert_eq!(shown.kpis.total_runs, 2);
}

#[test]
fn figures_are_those_of_their_buckets_and_all_together() {
    let span = Span::new(Window::Day, Some(at(0)), Some(at(24 * 60)), at(0)).unwrap();
    let bin = |ms: i64| bin_of(ms).to_string();
    let sums = vec![
        sum(Figure::Created, 30, "", 5, 0),
        sum(Figure::Created, 60, "", 3, 0),
        sum(Figure::Completed, 30, "", 2, 3000),
        sum(Figure::Completed, 30, DECLINED, 1, 600),
        sum(Figure::Failed, 30, "SESSION_EXPIRED", 1, 0),
        sum(Figure::Failed, 60, "SESSION_GONE", 2, 0),
        sum(Figure::Cancelled, 30, "", 1, 0),
        sum(Figure::Usage, 30, "", 900, 1_234_567),
        sum(Figure::Ended, 90, &bin(1000), 2, 2000),
        sum(Figure::Ended, 90, &bin(9000), 1, 9000),
        sum(Figure::Signals, 45, "", 4, 0),
        sum(Figure::Decisions, 45, "", 2, 5),
    ];
    let waiting = [
        Waiting { state: RunState::Queued, created_at: at(61) },
        Waiting { state: RunState::Suspended, created_at: at(61) },
    ];

    let Overview { kpis, charts, .. } = show(&span, sums, &waiting);

    assert_eq!(
        (kpis.total_runs, kpis.active_runs, kpis.completed_runs, kpis.declined_runs),
        (8, 1, 3, 1)
    );
    assert_eq!((kpis.failed_runs, kpis.cancelled_runs), (3, 1));
    assert_eq!(kpis.success_rate, 0.4286);
    assert_eq!(kpis.avg_duration_ms, Some(1200));
    assert_eq!((kpis.total_signals, kpis.total_tokens, kpis.total_cost_usd), (4, 900, 1.23));
    assert_eq!(charts.run_volume.data[..3], [5, 3, 0]);
    assert_eq!(charts.throughput.data[..3], [0, 3, 0]);
    assert_eq!(charts.latency.data[1], 3667);
    assert_eq!(charts.queue_depth.data[..2], [0, 1]);
    assert_eq!(charts.decision_outcome.data[0], -3);
    assert_eq!(charts.success_rate.data[..2], [60.0, 0.0]);
    assert_eq!(charts.cost.data[0], 1.234567);
    assert_eq!(charts.error_classes.labels, ["SESSION_GONE", "SESSION_EXPIRED"]);
    assert_eq!(charts.error_classes.data, [2, 1]);
    let close = |value: i64, to: i64| (value - to).abs() * 1000 <= to * 16;
    assert!(close(charts.latency_p50.data[1], 1000));
    assert!(close(charts.latency_p95.data[1], 9000));
}
