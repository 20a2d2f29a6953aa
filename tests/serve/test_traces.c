/*
 * Traces of arrivals, played on a fake clock: the scheduler against the best
 * schedule. Lanes are simulated: a batch of n takes what the lane's table says; a
 * lane that can prepare one batch while another runs starts it when that is done.
 *
 * The best schedule of a small trace (10 pictures) is found by branch and bound over
 * all of them. It knows what will come, which no scheduler does: so the mean over
 * traces is held to 1.1 on CPU lanes; on GPUs, where a batch of eight takes little
 * longer than one and waiting for the next burst would pay, it is only printed. Each
 * burst (nothing to foresee) is held to 1.1 by itself. Long traces (1,000 pictures)
 * are held, each, to 1.1 of a proven lower bound: no schedule ends before the pictures
 * from the i-th on, done at the best throughput of all lanes together, could end when
 * they start at the i-th's arrival.
 *
 * Traces are generated (make_trace, from a seed), or recorded from `saccade bench`
 * (traces/record.py), and stretched to several loads.
 */
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/scheduler.h"

enum { LANES = 4, SIZES = 4, JOBS_MAX = 1000, SIDES = 2 };

#define MS 1000000ull

/* compute(1), compute(2), compute(4), compute(8) in milliseconds; typical of a
 * CPU (batching buys 20 %) and of a GPU (it buys a factor of four). */
static const double cpu_ms[SIZES] = {2, 3.6, 6.8, 12.8};
static const double gpu_ms[SIZES] = {1, 1.1, 1.4, 2};

struct machine {
    int lanes;
    double times[LANES]; /* how much slower than the table */
    const double *ms;
    bool ahead; /* prepares a batch while one runs */
};

static uint64_t took(const struct machine *machine, int lane, int size)
{
    return (uint64_t)(machine->ms[size] * machine->times[lane] * 1e6);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return *seed >> 33;
}

/* Arrivals in bursts of 1 to `burst`, gaps of 0 to 2 × the mean. */
static void make_trace(uint64_t *at, int count, int burst, uint64_t gap_ns, uint64_t seed)
{
    uint64_t now = MS;

    for (int i = 0; i < count;) {
        int together = 1 + (int)(next_random(&seed) % (unsigned)burst);
        for (int j = 0; j < together && i < count; j++)
            at[i++] = now;
        now += next_random(&seed) % (2 * gap_ns + 1);
    }
}

/* ---- Playing ---------------------------------------------------------------- */

struct batch {
    struct sac_job *jobs[SAC_BATCH_MAX];
    int count;
    uint64_t until;
};

struct play {
    const struct machine *machine;
    struct sac_scheduler *s;
    struct sac_scheduler_drops drops;
    struct sac_job *jobs;
    struct batch batches[LANES][SIDES]; /* oldest first */
    bool lost[LANES];
    int done;
    uint64_t end;
};

/* What happens meanwhile. */
struct loss {
    int lane; /* −1: none */
    uint64_t at;
};

static void finish(struct play *play, int lane)
{
    struct batch *batch = &play->batches[lane][0];

    for (int i = 0; i < batch->count; i++) {
        assert_int_equal(batch->jobs[i]->drop_code, 0);
        batch->jobs[i]->drop_code = 1; /* counted once */
    }
    play->done += batch->count;
    play->end = batch->until > play->end ? batch->until : play->end;
    play->batches[lane][0] = play->batches[lane][1];
    play->batches[lane][1].count = 0;
    sac_scheduler_done(play->s, lane);
}

static void lose(struct play *play, int lane)
{
    struct sac_job *jobs[SIDES * SAC_BATCH_MAX];
    int count = 0;

    for (int b = 0; b < SIDES; b++) {
        struct batch *batch = &play->batches[lane][b];
        memcpy(jobs + count, batch->jobs, (size_t)batch->count * sizeof *jobs);
        count += batch->count;
        batch->count = 0;
    }
    sac_scheduler_lane_down(play->s, lane, jobs, count, &play->drops);
    play->lost[lane] = true;
}

static void take_one(struct play *play, int lane, int side, uint64_t now)
{
    struct batch *batch = &play->batches[lane][side];
    uint64_t from = side ? play->batches[lane][0].until : now;

    batch->count = side ? sac_scheduler_take_ahead(play->s, lane, now, batch->jobs, &play->drops)
                        : sac_scheduler_take(play->s, lane, now, batch->jobs, &play->drops);
    if (batch->count)
        batch->until = from + took(play->machine, lane, __builtin_ctz((unsigned)batch->count));
}

/* A submitter asks for one ahead when it has started one, and not again. */
static void take_all(struct play *play, uint64_t now, const bool *began)
{
    for (int l = 0; l < play->machine->lanes; l++) {
        bool starts = began[l];
        if (play->lost[l])
            continue;
        if (!play->batches[l][0].count) {
            take_one(play, l, 0, now);
            starts = true;
        }
        if (play->machine->ahead && starts && play->batches[l][0].count)
            take_one(play, l, 1, now);
    }
}

static uint64_t next_event(const struct play *play, uint64_t now)
{
    for (int l = 0; l < play->machine->lanes; l++)
        if (play->batches[l][0].count && play->batches[l][0].until < now)
            now = play->batches[l][0].until;
    return now;
}

static void make_lanes(struct play *play)
{
    struct sac_error err = {0};

    assert_ok(sac_scheduler_new(&play->s, JOBS_MAX, &err), err);
    assert_int_equal(sac_scheduler_add_model(play->s, 8, 0), 0);
    for (int l = 0; l < play->machine->lanes; l++) {
        assert_int_equal(sac_scheduler_add_lane(play->s), l);
        for (int k = 0; k < SIZES; k++)
            sac_scheduler_note(play->s, l, 0, 1 << k, 0, took(play->machine, l, k));
    }
    play->jobs = calloc(JOBS_MAX, sizeof *play->jobs);
    assert_non_null(play->jobs);
}

/* Returns when the last picture was done; each is done once. */
static uint64_t play_trace(const struct machine *machine, const uint64_t *at, int count,
                           struct loss loss)
{
    struct play play = {.machine = machine};
    struct sac_error err = {0};
    int next = 0, retry_ms;

    make_lanes(&play);
    while (play.done < count) {
        uint64_t now = next_event(&play, next < count ? at[next] : UINT64_MAX);
        bool began[LANES] = {false};
        if (loss.lane >= 0 && !play.lost[loss.lane] && loss.at <= now) {
            lose(&play, loss.lane);
            now = loss.at;
        }
        assert_true(now != UINT64_MAX);
        for (int l = 0; l < machine->lanes; l++)
            for (; play.batches[l][0].count && play.batches[l][0].until <= now; began[l] = true)
                finish(&play, l);
        for (; next < count && at[next] <= now; next++)
            assert_ok(sac_scheduler_submit(play.s, &play.jobs[next], now, &retry_ms, &err), err);
        take_all(&play, now, began);
    }
    assert_null(play.drops.first);
    sac_scheduler_free(play.s);
    free(play.jobs);
    return play.end;
}

static const struct loss no_loss = {-1, 0};

/* ---- The best ---------------------------------------------------------------- */

/* The best schedule, by search: the oldest pictures go into the next batch (they
 * are alike, so no other order ends sooner), on any lane, in any size. */
struct search {
    const struct machine *machine;
    const uint64_t *at;
    int count;
    double rate; /* pictures a nanosecond, all lanes at their best */
    uint64_t best;
};

static void search_from(struct search *s, int done, const uint64_t *until, uint64_t end)
{
    uint64_t earliest = UINT64_MAX;

    if (done == s->count) {
        s->best = end < s->best ? end : s->best;
        return;
    }
    for (int l = 0; l < s->machine->lanes; l++)
        earliest = until[l] < earliest ? until[l] : earliest;
    earliest = earliest > s->at[done] ? earliest : s->at[done];
    if (end >= s->best || (double)earliest + (s->count - done) / s->rate >= (double)s->best)
        return;
    for (int l = 0; l < s->machine->lanes; l++) {
        bool same = false; /* a lane alike was tried */
        for (int e = 0; e < l; e++)
            same |= until[e] == until[l] && s->machine->times[e] == s->machine->times[l];
        for (int k = SIZES - 1; !same && k >= 0; k--) {
            uint64_t after[LANES];
            int last = done + (1 << k) - 1;
            if (last >= s->count)
                continue;
            memcpy(after, until, sizeof after);
            uint64_t from = until[l] > s->at[last] ? until[l] : s->at[last];
            after[l] = from + took(s->machine, l, k);
            search_from(s, last + 1, after, after[l] > end ? after[l] : end);
        }
    }
}

/* Pictures a nanosecond, all lanes at their best, but for one. */
static double best_rate(const struct machine *machine, int but)
{
    double rate = 0;

    for (int l = 0; l < machine->lanes; l++) {
        double best = 0;
        for (int k = 0; k < SIZES; k++) {
            double one = (1 << k) / (double)took(machine, l, k);
            best = one > best ? one : best;
        }
        rate += l == but ? 0 : best;
    }
    return rate;
}

static uint64_t best_by_search(const struct machine *machine, const uint64_t *at, int count,
                               uint64_t known)
{
    struct search s = {machine, at, count, best_rate(machine, -1), known};
    uint64_t until[LANES] = {0};

    search_from(&s, 0, until, 0);
    return s.best;
}

/* `lost` takes its lane's share away from then on. */
static uint64_t bound(const struct machine *machine, const uint64_t *at, int count,
                      struct loss loss)
{
    double all = best_rate(machine, -1), rest = best_rate(machine, loss.lane), most = 0;

    for (int i = 0; i < count; i++) {
        double from = (double)at[i], left = count - i;
        if (loss.lane >= 0 && from + left / all > (double)loss.at) {
            left -= from < (double)loss.at ? ((double)loss.at - from) * all : 0;
            from = from < (double)loss.at ? (double)loss.at : from;
        }
        double end = from + left / (from >= (double)loss.at && loss.lane >= 0 ? rest : all);
        most = end > most ? end : most;
    }
    return (uint64_t)most;
}

/* ---- Against it --------------------------------------------------------------- */

static const struct machine equal = {4, {1, 1, 1, 1}, cpu_ms, false};
static const struct machine one_slow = {4, {1, 1, 1, 3}, cpu_ms, false};
static const struct machine gpus = {4, {1, 1, 1, 1}, gpu_ms, true};
static const struct machine gpus_one_slow = {4, {1, 1, 1, 3}, gpu_ms, true};

static double ratio_of(uint64_t ours, uint64_t best)
{
    return (double)(ours - MS) / (double)(best - MS); /* from the first arrival */
}

static void check_search(const char *name, const struct machine *machine)
{
    double worst = 0, sum = 0;
    int traces = 60;

    for (int seed = 1; seed <= traces; seed++) {
        uint64_t at[10];
        int burst = 1 + seed % 6;
        double gap = burst / best_rate(machine, -1) * (0.4 + seed % 5 * 0.3);
        make_trace(at, 10, burst, (uint64_t)gap, (uint64_t)seed);
        uint64_t ours = play_trace(machine, at, 10, no_loss);
        double ratio = ratio_of(ours, best_by_search(machine, at, 10, ours));
        worst = ratio > worst ? ratio : worst;
        sum += ratio;
    }
    print_message("# %s: over the best of all schedules of 10 pictures that knows what will come: "
                  "mean %.3f, worst %.3f\n",
                  name, sum / traces, worst);
    assert_true(sum / traces >= 1 && (sum / traces <= 1.1 || machine->ahead));
}

static void check_bursts(const char *name, const struct machine *machine)
{
    double worst = 0;

    for (int count = 1; count <= 12; count++) {
        uint64_t at[12];
        for (int i = 0; i < count; i++)
            at[i] = MS;
        uint64_t ours = play_trace(machine, at, count, no_loss);
        double ratio = ratio_of(ours, best_by_search(machine, at, count, ours));
        worst = ratio > worst ? ratio : worst;
    }
    print_message("# %s: bursts of 1 to 12: worst %.3f\n", name, worst);
    assert_true(worst >= 1 && worst <= 1.1);
}

/* Every lane in its turn is lost in the middle of the trace, or none. */
static double worst_ratio(const struct machine *machine, const uint64_t *at, int count, bool losing)
{
    double worst = 0;

    for (int lane = losing ? 0 : -1; lane < (losing ? machine->lanes : 0); lane++) {
        struct loss loss = {lane, (at[0] + at[count - 1]) / 2 + 123456};
        double ratio =
            ratio_of(play_trace(machine, at, count, loss), bound(machine, at, count, loss));
        assert_true(ratio >= 1 - 1e-9);
        worst = ratio > worst ? ratio : worst;
    }
    return worst;
}

static void check_made(const char *name, const struct machine *machine, bool losing)
{
    static uint64_t at[JOBS_MAX];
    double worst = 0;

    for (int seed = 1; seed <= 20; seed++) {
        int burst = 1 + seed % 8;
        double gap = (1 + burst) / 2.0 / best_rate(machine, -1) * (0.8 + seed % 5 * 0.1);
        make_trace(at, JOBS_MAX, burst, (uint64_t)gap, (uint64_t)seed);
        double ratio = worst_ratio(machine, at, JOBS_MAX, losing);
        worst = ratio > worst ? ratio : worst;
    }
    print_message("# %s%s: over a lower bound, 1,000 pictures: worst %.3f\n", name,
                  losing ? ", one lost" : "", worst);
    assert_true(worst <= 1.1);
}

/* Lines of microseconds; those with # say what they are. */
static int read_trace(const char *name, uint64_t *at)
{
    char path[128], line[128];
    int count = 0;

    snprintf(path, sizeof path, "tests/serve/traces/%s.txt", name);
    FILE *file = fopen(sac_test_source(path), "r");
    assert_non_null(file);
    while (count < JOBS_MAX && fgets(line, sizeof line, file))
        if (line[0] != '#')
            at[count++] = strtoull(line, NULL, 10) * 1000;
    fclose(file);
    return count;
}

/* Stretched so that the machine's best throughput is asked for `load` times. */
static void stretch(const uint64_t *from, uint64_t *to, int count, const struct machine *machine,
                    double load)
{
    double wanted = count / best_rate(machine, -1) / load;
    double times = wanted / (double)(from[count - 1] ? from[count - 1] : 1);

    for (int i = 0; i < count; i++)
        to[i] = MS + (uint64_t)((double)from[i] * times);
}

static void check_recorded(const char *name, const struct machine *machine, bool losing)
{
    static const char *const traces[] = {"poisson_400", "closed_16"};
    static uint64_t recorded[JOBS_MAX], at[JOBS_MAX];
    double worst = 0;

    for (int t = 0; t < 2; t++) {
        int count = read_trace(traces[t], recorded);
        assert_int_equal(count, 1000);
        for (double load = 0.5; load < 1.5; load += 0.1) {
            stretch(recorded, at, count, machine, load);
            double ratio = worst_ratio(machine, at, count, losing);
            worst = ratio > worst ? ratio : worst;
        }
    }
    print_message("# %s%s: over a lower bound, traces of saccade bench at loads of 0.5 to 1.4: "
                  "worst %.3f\n",
                  name, losing ? ", one lost" : "", worst);
    assert_true(worst <= 1.1);
}

static void check(const char *name, const struct machine *machine)
{
    check_search(name, machine);
    check_bursts(name, machine);
    for (int losing = 0; losing < 2; losing++) {
        check_made(name, machine, losing);
        check_recorded(name, machine, losing);
    }
}

static void the_makespan_is_within_a_tenth_of_the_best_on_four_equal_lanes(void **state)
{
    (void)state;
    check("4 equal CPU lanes", &equal);
    check("4 equal GPUs", &gpus);
}

static void the_makespan_is_within_a_tenth_of_the_best_on_three_lanes_and_a_slow_one(void **state)
{
    (void)state;
    check("3 + 1 slow CPU lanes", &one_slow);
    check("3 + 1 slow GPUs", &gpus_one_slow);
}

/* play_trace() checks that each job is done once. */
static void a_lane_lost_in_mid_batch_loses_no_job(void **state)
{
    (void)state;
    for (int seed = 1; seed <= 60; seed++) {
        const struct machine *machine = seed % 2 ? &equal : &gpus;
        uint64_t at[100];
        make_trace(at, 100, 12, 2 * MS, (uint64_t)seed);
        struct loss loss = {seed % 4, MS + (uint64_t)seed * 777777};
        play_trace(machine, at, 100, loss);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_makespan_is_within_a_tenth_of_the_best_on_four_equal_lanes),
        cmocka_unit_test(the_makespan_is_within_a_tenth_of_the_best_on_three_lanes_and_a_slow_one),
        cmocka_unit_test(a_lane_lost_in_mid_batch_loses_no_job),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
