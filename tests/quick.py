"""What ./test --quick leaves out: of tests and of modules with many cases it runs so many, spread
evenly over the list. What is not named runs whole; a test marked `slow` not at all.

Every suite, both kinds of worker, a reload, a kill with its span, a hung worker, slow clients, the
rows and the corpora stay in. The full run has everything.
"""
import os

#: "suite.module::test" -> cases
SAMPLES = {
    "agent.test_export::test_an_agent_that_is_killed_again_and_again_loses_nothing": 1,
    "agent.test_export::test_retry_after_is_respected": 1,
    "agent.test_export::test_a_collector_that_hangs_is_given_up_after_the_timeout_and_tried_again": 1,
    "compat.test_corpus::test_case": 240,
    "compat.test_environ::test_the_environ_is_gunicorns_key_by_key": 3,
    "compat.test_interpreter::test_sys_inside_ctserve_equals_sys_of_that_python": 3,
    "compat.test_interpreter::test_a_mistake_gets_its_lines_and_its_exit_code": 4,
    "compat.test_parser::test_case": 120,
    "compat.test_switches::test_case": 24,
    "compat.test_wsgi::test_trailers_are_shown_to_the_hook_as_gunicorn_shows_them": 2,
    "differential.test_differential::test_a_rule_is_needed_for_its_example": 4,
    "differential.test_differential::test_the_same_connections_are_made_and_mean_the_same_to_others": 1,
    "differential.test_differential::test_new_connections_mean_the_same_to_others": 1,
    "faults.test_faults::test_the_first_calls_on_the_way_of_a_request_fail_in_the_worker": 8,
    "faults.test_faults::test_the_nth_call_fails_in_the_master": 3,
    "faults.test_faults::test_a_body_that_stops_for_thirty_seconds_is_answered_with_408": 2,
    "layers.test_layers::test_a_planted_breach_of_each_kind_is_caught_and_named": 8,
    "lifecycle.test_accepting::test_one_client_wakes_one_worker": 1,
    "lifecycle.test_accepting::test_idle_workers_wake_as_seldom_as_their_beat": 0,
    "lifecycle.test_application_forks::test_what_the_application_forks_ends_when_it_is_told_to": 1,
    "lifecycle.test_exit_codes::test_the_start_ends_with_the_right_code_for": 5,
    "lifecycle.test_exit_codes::test_a_port_in_use_is_tried_five_times_then_its_holder_is_named": 0,
    "lifecycle.test_exit_codes::test_a_hook_that_raises_at_the_start_ends_it": 2,
    "lifecycle.test_hooks_like_gunicorn::test_hooks_come_in_gunicorns_order_with_its_arguments": 2,
    "lifecycle.test_hung_workers::test_a_hung_worker_is_replaced_with_its_stack_told": 1,
    "lifecycle.test_hung_workers::test_a_slow_import_is_no_hang": 0,
    "lifecycle.test_hung_workers::test_gthreads_timeout_does_not_limit_one_request": 0,
    "lifecycle.test_reuse_port::test_an_address_that_somebody_has_is_still_refused": 0,
    "lifecycle.test_reuse_port::test_ttou_takes_the_socket_away_and_ttin_brings_one": 0,
    "lifecycle.test_reuse_port::test_a_killed_worker_leaves_its_queue_to_its_successor": 1,
    "lifecycle.test_reuse_port::test_reloads_under_load_lose_no_request": 1,
    "refs.test_references::test_requests_leave_no_reference_behind": 6,
    "settings.test_sources::test_a_mistake_ends_with_a_sentence_and_gunicorns_code": 5,
    "settings.test_validators::test_a_value_becomes_what_gunicorn_makes_of_it": 5,
    "trace.test_hung_workers::"
    "test_a_hung_worker_is_replaced_in_time_with_its_stack_in_the_log_and_on_the_span": 1,
    "trace.test_forks::test_each_fork_runs_the_callbacks_and_shares_no_randomness": 1,
    "wire.test_connection::test_a_head_that_takes_longer_than_ten_seconds_gets_408": 0,
    "wire.test_connection::test_a_client_that_reads_slowly_gets_everything": 1,
    "wire.test_connection::test_an_idle_connection_is_closed_after_keepalive": 1,
    "wire.test_rows::test_row": 560,
    "wire.test_slow_clients::"
    "test_an_application_is_done_before_its_client_has_read_and_the_client_gets_it_all": 4,
    "wire.test_slow_clients::test_a_client_that_leaves_while_its_reply_waits_harms_nobody": 3,
    "wire.test_slow_clients::test_thousands_of_slow_clients_at_once_and_a_good_one_is_served": 1,
    "wire.test_worker_life::test_eight_reloads_under_load_lose_no_request": 1,
    "wire.test_worker_life::test_max_requests_under_load_loses_no_request": 1,
    "wire.test_worker_life::test_a_killed_master_leaves_nothing_behind_and_what_runs_is_answered": 1,
    "wire.test_worker_life::test_a_request_that_never_ends_does_not_outlive_a_killed_master": 0,
    "wire.test_worker_life::test_idle_workers_of_a_killed_master_stop_listening_at_once": 1,
    "wire.test_worker_life::"
    "test_int_and_quit_to_a_worker_call_worker_int_once_and_end_it_at_once": 2,
    "wire.test_worker_life::test_int_and_quit_to_the_master_call_worker_int_once_in_each_worker": 1,
}

#: "suite.module" -> tests, of those that are left
MODULES = {
    "agent.test_api": 6,
    "agent.test_export": 14,
    "compat.test_access_log": 3,
    "compat.test_built_files": 4,
    "compat.test_early_hints": 4,
    "compat.test_environ": 2,
    "compat.test_hostile_replies": 8,
    "compat.test_interpreter": 7,
    "compat.test_switches": 12,
    "compat.test_wsgi": 24,
    "lifecycle.test_accepting": 3,
    "lifecycle.test_agent_line": 3,
    "lifecycle.test_application_forks": 1,
    "lifecycle.test_bad_surroundings": 4,
    "lifecycle.test_banner": 2,
    "lifecycle.test_exit_codes": 5,
    "lifecycle.test_late_signals": 1,
    "lifecycle.test_listen": 3,
    "lifecycle.test_many_forks": 1,
    "lifecycle.test_reload_and_crash": 4,
    "lifecycle.test_reuse_port": 1,
    "settings.test_sources": 12,
    "trace.test_delivery": 2,
    "wire.test_connection": 40,
    "wire.test_refusals": 8,
    "wire.test_rows": 420,
    "wire.test_threads": 12,
    "wire.test_transcripts": 8,
    "wire.test_worker_life": 7,
}


def name_of(item):
    """"wire.test_rows::test_row" of a test, whatever its parameters."""
    suite = os.path.basename(os.path.dirname(item.path))
    return f"{suite}.{item.path.stem}::{getattr(item, 'originalname', item.name)}"


def spread(items, name_of_group, counts):
    """Of each group that `counts` names only so many, from its first to its last."""
    groups = {}
    for item in items:
        groups.setdefault(name_of_group(item), []).append(item)
    kept = set()
    for name, members in groups.items():
        count = min(counts.get(name, len(members)), len(members))
        kept |= {id(members[round(i * (len(members) - 1) / max(1, count - 1))])
                 for i in range(count)}
    return [item for item in items if id(item) in kept]


def sampled(items):
    """(kept, left out)"""
    kept = spread(items, name_of, SAMPLES)
    kept = spread(kept, lambda item: name_of(item).partition("::")[0], MODULES)
    ids = {id(item) for item in kept}
    return kept, [item for item in items if id(item) not in ids]
