/* Processes meet at rank 0's address, and notice who is gone. Each is a child of the test. */
#include "support/support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "ranks/meet.h"

enum { WORLD = 4 };

/* What a process came to; written to its pipe. */
struct report {
    int rc, seconds;
    unsigned char id;
    char text[400];
};

/* What a process does once all have met. */
enum deed { LEAVE, DIE, TELL, WAIT, STALL };

struct process {
    pid_t pid;
    int pipe;
};

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static int wait_s = 60, own_listener = -1;
static const char *master = "127.0.0.1";

/* ---- In the child ------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t lost = PTHREAD_COND_INITIALIZER;
static char lost_why[400];

static int lost_code;

static void on_lost(void *user, const struct sac_error *why)
{
    (void)user;
    pthread_mutex_lock(&lock);
    snprintf(lost_why, sizeof lost_why, "%.390s", why->text);
    lost_code = why->code;
    pthread_cond_signal(&lost);
    pthread_mutex_unlock(&lock);
}

static void wait_for_loss(struct report *report)
{
    pthread_mutex_lock(&lock);
    while (!lost_why[0])
        pthread_cond_wait(&lost, &lock);
    report->rc = lost_code;
    snprintf(report->text, sizeof report->text, "%s", lost_why);
    pthread_mutex_unlock(&lock);
}

static void act(struct sac_meet *meet, int rank, enum deed deed, struct report *report)
{
    struct sac_error err = {0};

    if (deed == DIE)
        raise(SIGKILL);
    if (deed == STALL)
        raise(SIGSTOP);
    if (deed == TELL) {
        sac_fail(&err, SAC_EINVAL, "rank %d has no paper", rank);
        sac_meet_tell(meet, &err);
    } else if (deed == WAIT) {
        wait_for_loss(report);
    } else {
        report->rc = sac_meet_leave(meet, &err);
        snprintf(report->text, sizeof report->text, "%.390s", err.text);
    }
}

static void be(const struct sac_ranks *ranks, int local, enum deed deed, int out)
{
    unsigned char id[SAC_COMM_ID] = {0};
    struct sac_meet *meet = NULL;
    struct sac_error err = {0};
    struct report report = {0};
    uint64_t began;

    if (ranks->rank == 0)
        memset(id, 77, sizeof id);
    struct sac_meet_options how = {.ranks = ranks,
                                   .local = local,
                                   .wait_s = wait_s,
                                   .on_lost = on_lost,
                                   .listens = own_listener >= 0,
                                   .listener = own_listener};
    report.rc = sac_meet_new(&meet, &how, id, &err);
    snprintf(report.text, sizeof report.text, "%.390s", err.text);
    report.id = id[SAC_COMM_ID - 1];
    began = sac_clock_ns();
    if (report.rc == 0)
        act(meet, ranks->rank, deed, &report);
    report.seconds = (int)((sac_clock_ns() - began) / 1000000000);
    sac_meet_free(meet);
    if (write(out, &report, sizeof report) != sizeof report)
        _exit(2);
    _exit(0);
}

/* ---- In the test ------------------------------------------------------------- */

static struct process start(int rank, int world, int local, int port, enum deed deed)
{
    struct sac_ranks ranks = {.rank = rank, .world = world, .port = port};
    struct process p;
    int ends[2];

    snprintf(ranks.master, sizeof ranks.master, "%s", master);
    assert_int_equal(pipe(ends), 0);
    p.pid = fork();
    if (p.pid == 0)
        be(&ranks, local, deed, ends[1]);
    close(ends[1]);
    p.pipe = ends[0];
    return p;
}

static struct report finish(struct process p)
{
    struct report report = {.rc = 99};

    if (read(p.pipe, &report, sizeof report) != sizeof report)
        report.rc = 98; /* it died */
    close(p.pipe);
    waitpid(p.pid, NULL, 0);
    return report;
}

static void all_meet_and_have_rank_0_s_id(void **state)
{
    struct process p[WORLD];
    int port = free_port();

    (void)state;
    for (int i = WORLD - 1; i >= 0; i--) /* rank 0 comes last */
        p[i] = start(i, WORLD, 1, port, LEAVE);
    for (int i = 0; i < WORLD; i++) {
        struct report r = finish(p[i]);
        if (r.rc != 0)
            fail_msg("rank %d: %d: %s", i, r.rc, r.text);
        assert_int_equal(r.id, 77);
    }
}

static void one_dies(int dead, enum deed deed, const char *name)
{
    struct process p[WORLD];
    int port = free_port();

    for (int i = 0; i < WORLD; i++)
        p[i] = start(i, WORLD, 2, port, i == dead ? deed : WAIT);
    for (int i = 0; i < WORLD; i++) {
        if (i == dead)
            continue;
        struct report r = finish(p[i]);
        assert_int_equal(r.rc, deed == TELL ? SAC_EINVAL : SAC_EDEVICE);
        if (!strstr(r.text, name))
            fail_msg("rank %d: \"%s\" does not contain \"%s\"", i, r.text, name);
        assert_true(r.seconds < 10);
    }
    if (deed == STALL)
        kill(p[dead].pid, SIGKILL);
    assert_int_equal(finish(p[dead]).rc, deed == TELL ? 0 : 98);
}

static void a_process_that_is_killed_is_named_to_the_others(void **state)
{
    (void)state;
    one_dies(2, DIE, "ranks 4 to 5 (");
}

static void rank_0_that_is_killed_is_named_to_the_others(void **state)
{
    (void)state;
    one_dies(0, DIE, "ranks 0 to 1 (127.0.0.1) is gone: its connection ended");
}

static void a_process_that_is_silent_is_lost_within_ten_seconds(void **state)
{
    (void)state;
    one_dies(1, STALL, "nothing was heard of it for 7 s");
}

/* And the code, by which they judge whether another try is worth it. */
static void who_fails_says_why_to_all(void **state)
{
    (void)state;
    one_dies(3, TELL, "rank 3 has no paper");
    one_dies(0, TELL, "rank 0 has no paper");
}

/* Others leave only when rank 0 is through. */
static void rank_0_s_end_is_waited_for(void **state)
{
    struct process p[2];
    int port = free_port();

    (void)state;
    p[0] = start(0, 2, 1, port, TELL);
    p[1] = start(1, 2, 1, port, LEAVE);
    struct report r = finish(p[1]);
    assert_int_equal(r.rc, SAC_EINVAL);
    assert_string_equal(r.text, "rank 0 has no paper");
    finish(p[0]);
}

static void processes_that_do_not_fit_together_are_told(void **state)
{
    struct process p[2];
    int port = free_port();

    (void)state;
    p[0] = start(0, 3, 1, port, LEAVE);
    p[1] = start(1, 2, 1, port, LEAVE);
    for (int i = 0; i < 2; i++) {
        struct report r = finish(p[i]);
        assert_int_equal(r.rc, SAC_EINVAL);
        assert_non_null(strstr(r.text, "is one of 2 with 1 ranks each, and process 0 one of 3"));
    }
}

/* It says nothing sensible, and the others meet all the same. */
static void a_stranger_at_the_door_is_left_standing(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct process p[2];
    int port = free_port(), fd = socket(AF_INET, SOCK_STREAM, 0), rc = -1;

    (void)state;
    at.sin_port = htons((uint16_t)port);
    p[0] = start(0, 2, 1, port, LEAVE);
    for (int i = 0; i < 100 && rc != 0; i++) {
        rc = connect(fd, (struct sockaddr *)&at, sizeof at);
        if (rc != 0)
            usleep(50000);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(send(fd, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    p[1] = start(1, 2, 1, port, LEAVE);
    assert_int_equal(finish(p[1]).rc, 0);
    assert_int_equal(finish(p[0]).rc, 0);
    close(fd);
}

/* A door that is opened and shut at once: how often it is knocked at in a second. */
static void who_is_turned_away_waits_before_it_comes_again(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int door = socket(AF_INET, SOCK_STREAM, 0), knocks = 0;

    (void)state;
    assert_int_equal(bind(door, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(door, 16), 0);
    assert_int_equal(getsockname(door, (struct sockaddr *)&at, &size), 0);
    wait_s = 1;
    struct process p = start(1, 2, 1, ntohs(at.sin_port), LEAVE);
    wait_s = 60;
    for (struct pollfd wait = {.fd = door, .events = POLLIN}; poll(&wait, 1, 2000) == 1; knocks++)
        close(accept(door, NULL, NULL));
    assert_int_equal(finish(p).rc, SAC_EDEVICE);
    assert_in_range(knocks, 1, 6); /* a quarter of a second between two */
    close(door);
}

/* As processes that MPI started do it: a name that nobody has is passed over. */
static void rank_0_is_found_by_any_of_its_names_at_a_port_that_was_free(void **state)
{
    char hosts[SAC_RANK_HOST], all[SAC_RANK_HOST + 32];
    struct sac_error err = {0};
    int listener, port = 0;

    (void)state;
    assert_ok(sac_meet_listen(&listener, &port, hosts, sizeof hosts, &err), err);
    assert_in_range(port, 1, 65535);
    assert_true(strlen(hosts) > 0);
    snprintf(all, sizeof all, "no.such.name.invalid,%s", hosts);
    all[SAC_RANK_HOST - 1] = 0;
    struct process p[2];
    master = all;
    p[1] = start(1, 2, 1, port, LEAVE);
    own_listener = listener;
    p[0] = start(0, 2, 1, port, LEAVE);
    own_listener = -1;
    master = "127.0.0.1";
    close(listener);
    for (int i = 0; i < 2; i++) {
        struct report r = finish(p[i]);
        if (r.rc != 0)
            fail_msg("rank %d: %d: %s", i, r.rc, r.text);
        assert_int_equal(r.id, 77);
    }
}

static void who_does_not_come_is_named(void **state)
{
    struct process p[2];
    int port = free_port();

    (void)state;
    wait_s = 2;
    p[0] = start(0, 4, 1, port, LEAVE);
    p[1] = start(2, 4, 1, port, LEAVE);
    wait_s = 60;
    for (int i = 0; i < 2; i++) {
        struct report r = finish(p[i]);
        assert_int_equal(r.rc, SAC_EDEVICE);
        if (!strstr(r.text, "2 of 4 processes did not come to 127.0.0.1:") ||
            !strstr(r.text, "within 2 s: 1, 3"))
            fail_msg("%s", r.text);
    }
}

static void rank_0_that_does_not_come_is_named(void **state)
{
    (void)state;
    wait_s = 1;
    struct report r = finish(start(1, 2, 1, free_port(), LEAVE));
    wait_s = 60;
    assert_int_equal(r.rc, SAC_EDEVICE);
    assert_non_null(strstr(r.text, "rank 0 was not met at 127.0.0.1:"));
    assert_non_null(strstr(r.text, "within 1 s: Connection refused"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_meet_and_have_rank_0_s_id),
        cmocka_unit_test(a_process_that_is_killed_is_named_to_the_others),
        cmocka_unit_test(rank_0_that_is_killed_is_named_to_the_others),
        cmocka_unit_test(a_process_that_is_silent_is_lost_within_ten_seconds),
        cmocka_unit_test(who_fails_says_why_to_all),
        cmocka_unit_test(rank_0_s_end_is_waited_for),
        cmocka_unit_test(who_does_not_come_is_named),
        cmocka_unit_test(rank_0_that_does_not_come_is_named),
        cmocka_unit_test(processes_that_do_not_fit_together_are_told),
        cmocka_unit_test(a_stranger_at_the_door_is_left_standing),
        cmocka_unit_test(who_is_turned_away_waits_before_it_comes_again),
        cmocka_unit_test(rank_0_is_found_by_any_of_its_names_at_a_port_that_was_free),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
