/* A shell for guests that have one process and cannot fork: a subset of POSIX sh, whose every command is a part of it.
 *
 * It knows lists, pipelines, && || !, { }, if, while, until, for, quotes, assignments, $NAME ${NAME} ${#NAME} $$ $? $# $1 "$@" $((...))
 * $(...), redirections to and from files, >&2 and 2>&1, and the commands of the table below. An expansion is never split into words. A
 * pipeline has one command that prints, and then filters, to each of which its predecessor's output is handed as it is printed.
 * Called by the name of a command, it is that command.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 64, MAX_STAGES = 8, BLOCK_BYTES = 1 << 16, SLICE = 100 /* ms */ };
enum { FAILED = 1, MISUSED = 2, NOT_FOUND = 127 };

/* Where output goes: to a descriptor, or through a filter to the next. */
struct output {
    int descriptor;
    bool closed; /* it takes no more */
    void (*filter)(struct output *self, const char *data, size_t length);
    struct output *next;
    long left;     /* of head: bytes or lines */
    char from, to; /* of tr */
};

struct command {
    int count;
    char *words[MAX_WORDS + 1];
    char *paths[3];      /* what 0, 1 and 2 are redirected to: a file, */
    bool append[3];      /* at its end, */
    int duplicates[3];   /* or what another one is */
};

static const char *at; /* what of the script comes next */
static bool passing;   /* over words that are not to be run */
static int status, parameter_count;
static char **parameters;
static struct output standard = {.descriptor = 1}, error = {.descriptor = 2};
static struct output *out = &standard, *err = &error;
static const char *input; /* the path that commands read from, or NULL */
static char *traps[NSIG];
static volatile sig_atomic_t caught[NSIG], any_caught;

static int run_list(bool live);

/* -- Output */

static void put(struct output *output, const char *data, size_t length)
{
    if (output->filter) {
        output->filter(output, data, length);
        return;
    }
    while (length > 0) {
        ssize_t done = write(output->descriptor, data, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            output->closed = true;
            return;
        }
        data += done;
        length -= done;
    }
}

static void put_text(struct output *output, const char *text) { put(output, text, strlen(text)); }

static int complain(const char *who, const char *why, int code)
{
    char text[512];
    snprintf(text, sizeof text, "sh: %s: %s\n", who, why);
    put_text(err, text);
    return code;
}

static void filter_bytes(struct output *self, const char *data, size_t length)
{
    if ((long)length > self->left)
        length = self->left;
    put(self->next, data, length);
    self->left -= length;
    self->closed = self->left == 0 || self->next->closed;
}

static void filter_lines(struct output *self, const char *data, size_t length)
{
    size_t taken = 0;
    while (taken < length && self->left > 0)
        self->left -= data[taken++] == '\n';
    put(self->next, data, taken);
    self->closed = self->left == 0 || self->next->closed;
}

static void filter_characters(struct output *self, const char *data, size_t length)
{
    static char block[BLOCK_BYTES];
    for (size_t done = 0; done < length; done += BLOCK_BYTES) {
        size_t count = length - done < BLOCK_BYTES ? length - done : BLOCK_BYTES;
        for (size_t i = 0; i < count; i++)
            block[i] = data[done + i] == self->from ? self->to : data[done + i];
        put(self->next, block, count);
    }
    self->closed = self->next->closed;
}

/* -- Signals */

static int signal_number(const char *name)
{
    if (isdigit((unsigned char)*name))
        return atoi(name);
    if (!strncmp(name, "SIG", 3))
        name += 3;
    for (int number = 1; number < NSIG; number++) {
        const char *known = sigabbrev_np(number);
        if (known && !strcmp(known, name))
            return number;
    }
    return -1;
}

static void on_signal(int number) { caught[number] = any_caught = 1; }

static int run_text(const char *text)
{
    const char *before = at;
    at = text;
    int code = run_list(true);
    if (*at)
        exit(complain(at, "syntax error", MISUSED));
    at = before;
    return code;
}

static void run_traps(void)
{
    if (!any_caught)
        return;
    any_caught = 0;
    for (int number = 1; number < NSIG; number++) {
        if (caught[number] && traps[number]) {
            int before = status;
            caught[number] = 0;
            run_text(traps[number]);
            status = before;
        }
    }
}

/* -- Words */

static bool is_name(char c) { return isalnum((unsigned char)c) || c == '_'; }

static void skip_blanks(void)
{
    while (*at == ' ' || *at == '\t' || (*at == '\\' && at[1] == '\n'))
        at += 1 + (*at == '\\');
}

static const char *variable(const char *name, size_t length)
{
    static char text[32];
    if (length == 1 && strchr("$?#", *name))
        snprintf(text, sizeof text, "%d", *name == '$' ? getpid() : *name == '?' ? status : parameter_count);
    else if (length == 1 && isdigit((unsigned char)*name))
        return *name - '0' <= parameter_count ? parameters[*name - '0'] : "";
    else {
        char *copy = strndup(name, length);
        const char *value = getenv(copy);
        free(copy);
        return value ? value : "";
    }
    return text;
}

static long sum(const char **c);

static long operand(const char **c)
{
    *c += strspn(*c, " ");
    if (**c == '(' || **c == '-') {
        bool negative = *(*c)++ == '-';
        long value = negative ? operand(c) : sum(c);
        *c += !negative && **c == ')';
        return negative ? -value : value;
    }
    if (isdigit((unsigned char)**c))
        return strtol(*c, (char **)c, 0);
    const char *name = *c += **c == '$';
    while (is_name(**c))
        ++*c;
    return atol(variable(name, *c - name));
}

static long product(const char **c)
{
    long value = operand(c);
    for (;;) {
        *c += strspn(*c, " ");
        char sign = **c;
        if (sign != '*' && sign != '/' && sign != '%')
            return value;
        ++*c;
        long other = operand(c);
        if (sign != '*' && other == 0)
            exit(complain("arithmetic", "division by zero", MISUSED));
        value = sign == '*' ? value * other : sign == '/' ? value / other : value % other;
    }
}

static long sum(const char **c)
{
    long value = product(c);
    for (;;) {
        *c += strspn(*c, " ");
        char sign = **c;
        if (sign != '+' && sign != '-')
            return value;
        ++*c;
        long other = product(c);
        value += sign == '+' ? other : -other;
    }
}

static FILE *captured;

static void capture(struct output *self, const char *data, size_t length)
{
    (void)self;
    fwrite(data, 1, length, captured);
}

/* What a command prints, without the newlines at its end. */
static void substitute(FILE *to)
{
    char *text;
    size_t length;
    struct output memory = {.filter = capture}, *before = out;
    FILE *captured_before = captured;
    bool passing_before = passing;
    captured = open_memstream(&text, &length);
    out = &memory;
    at++;
    run_list(!passing);
    at += *at == ')';
    passing = passing_before;
    out = before;
    fclose(captured);
    captured = captured_before;
    while (length > 0 && text[length - 1] == '\n')
        length--;
    fwrite(text, 1, length, to);
    free(text);
}

static void expand(FILE *to)
{
    at++;
    if (!strncmp(at, "((", 2)) {
        at += 2;
        fprintf(to, "%ld", sum(&at));
        at += strspn(at, " ");
        at += 2 * !strncmp(at, "))", 2);
        return;
    }
    if (*at == '(') {
        substitute(to);
        return;
    }
    bool braces = *at == '{';
    bool measured = braces && at[1] == '#' && at[2] != '}';
    const char *name = at += braces + measured;
    if (is_name(*at) && !isdigit((unsigned char)*at))
        while (is_name(*at))
            at++;
    else if (*at && strchr("$?#0123456789", *at))
        at++;
    if (at == name)
        fputc('$', to);
    else if (measured)
        fprintf(to, "%zu", strlen(variable(name, at - name)));
    else
        fputs(variable(name, at - name), to);
    at += braces && *at == '}';
}

static bool is_end_of_word(void) { return *at == '\0' || strchr(" \t\n;|&<>()", *at) != NULL; }

/* The next word, expanded, or NULL. */
static char *read_word(void)
{
    char *text;
    size_t length;
    if (is_end_of_word())
        return NULL;
    FILE *to = open_memstream(&text, &length);
    while (!is_end_of_word()) {
        if (*at == '\'') {
            while (*++at && *at != '\'')
                fputc(*at, to);
            at += *at == '\'';
        } else if (*at == '"') {
            at++;
            while (*at && *at != '"') {
                if (*at == '$') {
                    expand(to);
                } else {
                    at += *at == '\\' && at[1] && strchr("$\"\\`", at[1]);
                    fputc(*at++, to);
                }
            }
            at += *at == '"';
        } else if (*at == '$') {
            expand(to);
        } else {
            at += *at == '\\' && at[1];
            fputc(*at++, to);
        }
    }
    fclose(to);
    return text;
}

/* -- The commands */

static int copy_from(const char *path)
{
    static char block[BLOCK_BYTES];
    ssize_t length;
    int descriptor = path ? open(path, O_RDONLY) : 0;
    if (descriptor < 0)
        return complain(path, strerror(errno), FAILED);
    while (!out->closed && (length = read(descriptor, block, sizeof block)) > 0)
        put(out, block, length);
    if (path)
        close(descriptor);
    return 0;
}

/* Make a filter of a command; the path that it reads when it is the first, or NULL, is put to path. */
static bool make_filter(int count, char **words, struct output *filter, const char **path)
{
    int next = 1;
    *filter = (struct output){.descriptor = -1, .left = 10};
    if (!strcmp(words[0], "head")) {
        filter->filter = filter_lines;
        if (count > 2 && words[1][0] == '-' && strchr("cn", words[1][1])) {
            filter->filter = words[1][1] == 'c' ? filter_bytes : filter_lines;
            filter->left = atol(words[2]);
            next = 3;
        }
    } else if (!strcmp(words[0], "tr") && count == 3) {
        filter->filter = filter_characters;
        filter->from = words[1][0] == '\\' ? strtol(words[1] + 1, NULL, 8) : words[1][0];
        filter->to = words[2][0];
        next = 3;
    } else if (!strcmp(words[0], "cat") && count == 1) {
        filter->filter = filter_bytes;
        filter->left = LONG_MAX;
    } else {
        return false;
    }
    *path = next < count ? words[next] : input;
    return true;
}

static int run_filter(int count, char **words)
{
    struct output filter, *before = out;
    const char *path;
    if (!make_filter(count, words, &filter, &path))
        return complain(words[0], "not understood", MISUSED);
    filter.next = out;
    out = &filter;
    int code = copy_from(path);
    out = before;
    return code;
}

static int run_cat(int count, char **words)
{
    int code = count == 1 ? copy_from(input) : 0;
    for (int i = 1; i < count; i++)
        code |= copy_from(words[i]);
    return code;
}

static int run_echo(int count, char **words)
{
    char *text;
    size_t length;
    bool newline = count < 2 || strcmp(words[1], "-n") != 0;
    FILE *to = open_memstream(&text, &length);
    for (int i = newline ? 1 : 2; i < count; i++)
        fprintf(to, "%s%s", words[i], i + 1 < count ? " " : "");
    if (newline)
        fputc('\n', to);
    fclose(to);
    put(out, text, length);
    free(text);
    return 0;
}

static const char *put_escape(FILE *to, const char *c)
{
    static const char letters[] = "abefnrtv\\", meanings[] = "\a\b\033\f\n\r\t\v\\";
    const char *letter = *c ? strchr(letters, *c) : NULL;
    if (letter) {
        fputc(meanings[letter - letters], to);
        return c + 1;
    }
    int byte = 0, digits = 0;
    while (digits < 3 && c[digits] >= '0' && c[digits] <= '7')
        byte = byte * 8 + c[digits++] - '0';
    fputc(digits ? byte : '\\', to);
    return c + digits;
}

static int run_printf(int count, char **words)
{
    char *text;
    size_t length;
    int next = 2, before;
    if (count < 2)
        return complain("printf", "what?", MISUSED);
    FILE *to = open_memstream(&text, &length);
    do {
        before = next;
        for (const char *c = words[1]; *c;) {
            if (*c == '\\') {
                c = put_escape(to, c + 1);
            } else if (*c == '%' && c[1] && strchr("sdc%", c[1])) {
                const char *word = c[1] != '%' && next < count ? words[next++] : "";
                if (c[1] == '%')
                    fputc('%', to);
                else if (c[1] == 'd')
                    fprintf(to, "%ld", atol(word));
                else
                    fprintf(to, "%.*s", c[1] == 'c' ? 1 : INT_MAX, word);
                c += 2;
            } else {
                fputc(*c++, to);
            }
        }
    } while (next < count && next > before);
    fclose(to);
    put(out, text, length);
    free(text);
    return 0;
}

static int run_yes(int count, char **words)
{
    const char *line = count > 1 ? words[1] : "y";
    size_t each = strlen(line) + 1, lines = each < BLOCK_BYTES ? BLOCK_BYTES / each : 1;
    char *block = malloc(each * lines);
    for (size_t i = 0; i < lines; i++) {
        memcpy(block + i * each, line, each);
        block[i * each + each - 1] = '\n';
    }
    while (!out->closed) {
        put(out, block, each * lines);
        run_traps();
    }
    free(block);
    return 0;
}

static int run_seq(int count, char **words)
{
    char *text;
    size_t length;
    FILE *to = open_memstream(&text, &length);
    for (long i = count > 2 ? atol(words[1]) : 1; i <= atol(words[count - 1]); i++)
        fprintf(to, "%ld\n", i);
    fclose(to);
    put(out, text, length);
    free(text);
    return 0;
}

/* A signal that is trapped ends the sleep. One that comes just before a call is seen after a slice: Nanos' ppoll does not end by the
 * signals that it unblocks. */
static int run_sleep(int count, char **words)
{
    double seconds = count > 1 ? atof(words[1]) : 0;
    while (seconds > 0 && !any_caught) {
        double slice = seconds < SLICE / 1e3 ? seconds : SLICE / 1e3;
        struct timespec time = {.tv_nsec = (long)(slice * 1e9)};
        nanosleep(&time, NULL);
        seconds -= slice;
    }
    return 0;
}

static int run_trap(int count, char **words)
{
    for (int i = 2; i < count; i++) {
        int number = signal_number(words[i]);
        struct sigaction action = {.sa_handler = on_signal};
        if (!strcmp(words[1], "-"))
            action.sa_handler = SIG_DFL;
        else if (*words[1] == '\0')
            action.sa_handler = SIG_IGN;
        if (number < 1 || sigaction(number, &action, NULL) < 0)
            return complain(words[i], "no signal to trap", FAILED);
        traps[number] = strdup(words[1]);
    }
    return 0;
}

static int run_kill(int count, char **words)
{
    int number = count > 1 && words[1][0] == '-' ? signal_number(words[1] + 1) : SIGTERM;
    if (number < 0 || kill(atoi(words[count - 1]), number) < 0)
        return complain("kill", "no such signal or process", FAILED);
    return 0;
}

static int test(int count, char **words)
{
    if (count > 1 && !strcmp(words[0], "!"))
        return !test(count - 1, words + 1);
    if (count == 1)
        return *words[0] == '\0';
    if (count == 2) {
        switch (words[0][1]) {
        case 'n': return *words[1] == '\0';
        case 'z': return *words[1] != '\0';
        default: return access(words[1], F_OK) != 0;
        }
    }
    if (count != 3)
        return complain("test", "not understood", MISUSED);
    const char *how = words[1];
    long difference = atol(words[0]) - atol(words[2]);
    if (how[0] != '-')
        return (strcmp(words[0], words[2]) == 0) == (how[0] == '!');
    switch (how[1]) {
    case 'e': return difference != 0;
    case 'n': return difference == 0;
    case 'l': return how[2] == 't' ? difference >= 0 : difference > 0;
    default: return how[2] == 't' ? difference <= 0 : difference < 0;
    }
}

static int run_test(int count, char **words) { return test(count - 1 - !strcmp(words[0], "["), words + 1); }

static int run_pwd(int count, char **words)
{
    char path[4096];
    (void)count, (void)words;
    if (!getcwd(path, sizeof path))
        return complain("pwd", strerror(errno), FAILED);
    put_text(out, path);
    put_text(out, "\n");
    return 0;
}

static int run_cd(int count, char **words)
{
    const char *path = count > 1 ? words[1] : "/";
    return chdir(path) < 0 ? complain(path, strerror(errno), FAILED) : 0;
}

/* The variables, each with a newline, or with a NUL by -0. */
static int run_env(int count, char **words)
{
    bool raw = count > 1 && !strcmp(words[1], "-0");
    for (char **entry = environ; *entry; entry++) {
        put_text(out, *entry);
        put(out, raw ? "" : "\n", 1);
    }
    return 0;
}

static int run_export(int count, char **words)
{
    for (int i = 1; i < count; i++)
        if (strchr(words[i], '='))
            putenv(strdup(words[i]));
    return 0;
}

static int run_exit(int count, char **words) { exit(count > 1 ? atoi(words[1]) : status); }

static int run_true(int count, char **words)
{
    (void)count, (void)words;
    return 0;
}

static int run_false(int count, char **words) { return !run_true(count, words); }

static int run_simple(int count, char **words);

/* Serve a port: each connection gets what the command behind -e prints. */
static int run_nc(int count, char **words)
{
    if (count < 6 || strcmp(words[1], "-ll") != 0 || strcmp(words[2], "-p") != 0 || strcmp(words[4], "-e") != 0)
        return complain("nc", "only as nc -ll -p port -e command", MISUSED);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[3]))};
    struct output connection = {.descriptor = -1}, *before = out;
    int listening = socket(AF_INET, SOCK_STREAM, 0), again = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &again, sizeof again);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) < 0 || listen(listening, 8) < 0)
        return complain(words[3], strerror(errno), FAILED);
    for (;;) {
        struct pollfd listener = {.fd = listening, .events = POLLIN};
        int ready = poll(&listener, 1, SLICE);
        run_traps();
        if (ready <= 0)
            continue;
        connection.descriptor = accept(listening, NULL, NULL);
        if (connection.descriptor < 0)
            return complain(words[3], strerror(errno), FAILED);
        connection.closed = false;
        out = &connection;
        run_simple(count - 5, words + 5);
        out = before;
        close(connection.descriptor);
    }
}

static int run_hostname(int count, char **words)
{
    struct utsname machine;
    (void)count, (void)words;
    uname(&machine);
    put_text(out, machine.nodename);
    put_text(out, "\n");
    return 0;
}

static int run_exec(int count, char **words) { exit(run_simple(count - 1, words + 1)); }

static int run_shell(int count, char **words)
{
    if (count < 3 || strcmp(words[1], "-c") != 0)
        return complain("sh", "only as sh -c script", MISUSED);
    char **before = parameters;
    int count_before = parameter_count;
    parameters = count > 3 ? words + 3 : words;
    parameter_count = count > 3 ? count - 4 : 0;
    int code = run_text(words[2]);
    parameters = before;
    parameter_count = count_before;
    return code;
}

static const struct {
    const char *name;
    int (*run)(int count, char **words);
} commands[] = {
    {":", run_true}, {"[", run_test}, {"cat", run_cat}, {"cd", run_cd}, {"echo", run_echo}, {"env", run_env}, {"exec", run_exec}, {"exit", run_exit},
    {"export", run_export}, {"false", run_false}, {"head", run_filter}, {"hostname", run_hostname}, {"kill", run_kill}, {"nc", run_nc}, {"printf", run_printf}, {"pwd", run_pwd},
    {"seq", run_seq}, {"sh", run_shell}, {"sleep", run_sleep}, {"test", run_test}, {"tr", run_filter}, {"trap", run_trap},
    {"true", run_true}, {"yes", run_yes},
};

static int run_simple(int count, char **words)
{
    if (count == 0)
        return 0;
    const char *slash = strrchr(words[0], '/'), *name = slash ? slash + 1 : words[0];
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(commands[i].name, name))
            return commands[i].run(count, words);
    return complain(words[0], "not found", NOT_FOUND);
}

/* -- Pipelines */

static void read_redirection(struct command *command, int which)
{
    bool reads = *at++ == '<';
    which = which >= 0 ? which : !reads;
    command->append[which] = *at == '>';
    at += *at == '>';
    if (*at == '&') {
        command->duplicates[which] = at[1] - '0';
        at += 2;
        return;
    }
    skip_blanks();
    command->paths[which] = read_word();
}

/* Assignments take place, and all else is left to be run. */
static void read_command(struct command *command, bool live)
{
    *command = (struct command){.duplicates = {-1, -1, -1}};
    passing = !live;
    for (;;) {
        skip_blanks();
        if (*at == '<' || *at == '>') {
            read_redirection(command, -1);
        } else if (*at >= '0' && *at <= '2' && (at[1] == '<' || at[1] == '>')) {
            at++;
            read_redirection(command, at[-1] - '0');
        } else if (!strncmp(at, "\"$@\"", 4)) {
            at += 4;
            for (int i = 1; i <= parameter_count && command->count < MAX_WORDS; i++)
                command->words[command->count++] = strdup(parameters[i]);
        } else {
            const char *start = at;
            char *word = read_word();
            if (!word || command->count == MAX_WORDS) {
                free(word);
                return;
            }
            while (is_name(*start))
                start++;
            bool assigns = command->count == 0 && *start == '=';
            if (assigns && live)
                putenv(strdup(word));
            if (assigns)
                free(word);
            else
                command->words[command->count++] = word;
        }
    }
}

static void free_command(struct command *command)
{
    while (command->count > 0)
        free(command->words[--command->count]);
    for (int i = 0; i < 3; i++)
        free(command->paths[i]);
}

static bool run_compound(bool live);

static int run_redirected(struct command *command, const char *compound)
{
    struct output files[3] = {{.descriptor = -1}, {.descriptor = -1}, {.descriptor = -1}};
    struct output *out_before = out, *err_before = err;
    const char *input_before = input;
    int code = 0;
    input = command->paths[0] ? command->paths[0] : input;
    for (int i = 1; i < 3 && code == 0; i++) {
        struct output **which = i == 1 ? &out : &err;
        if (command->duplicates[i] >= 0)
            *which = command->duplicates[i] == 1 ? out : err;
        if (!command->paths[i])
            continue;
        files[i].descriptor = open(command->paths[i], O_WRONLY | O_CREAT | (command->append[i] ? O_APPEND : O_TRUNC), 0644);
        if (files[i].descriptor < 0)
            code = complain(command->paths[i], strerror(errno), FAILED);
        else
            *which = &files[i];
    }
    if (code == 0 && compound) {
        const char *end = at;
        at = compound;
        run_compound(true);
        at = end;
        code = status;
    } else if (code == 0) {
        code = run_simple(command->count, command->words);
    }
    for (int i = 1; i < 3; i++)
        if (files[i].descriptor >= 0 && close(files[i].descriptor) < 0)
            code = complain(command->paths[i], strerror(errno), FAILED);
    out = out_before;
    err = err_before;
    input = input_before;
    return code;
}

/* What is behind a compound command says where its output goes: it is passed over first, and then run. */
static int run_pipeline(bool live)
{
    struct command stages[MAX_STAGES];
    struct output filters[MAX_STAGES], *before = out;
    int count = 0, code = 0;
    skip_blanks();
    bool negated = *at == '!' && at[1] == ' ';
    at += negated;
    skip_blanks();
    const char *compound = at;
    if (!run_compound(false))
        compound = NULL;
    read_command(&stages[count++], live);
    while (*at == '|' && at[1] != '|' && count < MAX_STAGES) {
        at++;
        read_command(&stages[count++], live);
    }
    for (int i = count - 1; i > 0 && live; i--) {
        const char *path;
        if (stages[i].count == 0 || !make_filter(stages[i].count, stages[i].words, &filters[i], &path))
            exit(complain("|", "not followed by a filter", MISUSED));
        filters[i].next = out;
        out = &filters[i];
    }
    if (live)
        code = run_redirected(&stages[0], compound);
    if (count > 1)
        code = 0; /* the filters' */
    out = before;
    for (int i = 0; i < count; i++)
        free_command(&stages[i]);
    return negated ? !code : code;
}

/* -- Lists and compound commands */

static void skip_separators(void)
{
    for (skip_blanks(); *at == ';' || *at == '\n'; skip_blanks())
        at++;
}

static bool take_word(const char *keyword)
{
    size_t length = strlen(keyword);
    skip_separators();
    if (strncmp(at, keyword, length) != 0 || (at[length] && !strchr(" \t\n;|&>)", at[length])))
        return false;
    at += length;
    return true;
}

static void expect(const char *keyword)
{
    if (!take_word(keyword))
        exit(complain(keyword, "expected", MISUSED));
}

static bool is_at_end(void)
{
    static const char *const ends[] = {"do", "done", "then", "elif", "else", "fi", "}"};
    skip_separators();
    const char *before = at;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (take_word(ends[i])) {
            at = before;
            return true;
        }
    }
    return *at == '\0' || *at == ')';
}

static void run_loop(bool live, bool while_true)
{
    const char *condition = at;
    int code = 0;
    for (;;) {
        at = condition;
        bool goes_on = live && (run_list(live) == 0) == while_true;
        if (!live)
            run_list(false);
        expect("do");
        int last = run_list(goes_on);
        expect("done");
        if (!goes_on)
            break;
        code = last;
    }
    if (live)
        status = code;
}

static void run_for(bool live)
{
    struct command words;
    skip_blanks();
    char *name = read_word();
    expect("in");
    read_command(&words, live);
    expect("do");
    const char *body = at;
    run_list(false);
    const char *end = at;
    for (int i = 0; live && i < words.count; i++) {
        setenv(name, words.words[i], 1);
        at = body;
        run_list(true);
    }
    at = end;
    expect("done");
    free(name);
    free_command(&words);
}

static void run_if(bool live)
{
    bool taken = false;
    int code = 0;
    do {
        bool true_here = run_list(live && !taken) == 0 && live && !taken;
        expect("then");
        int last = run_list(true_here);
        code = true_here ? last : code;
        taken |= true_here;
    } while (take_word("elif"));
    if (take_word("else")) {
        int last = run_list(live && !taken);
        code = taken ? code : last;
    }
    expect("fi");
    if (live)
        status = code;
}

/* Run a compound command, or only pass over it; whether there is one. Its code is the status. */
static bool run_compound(bool live)
{
    if (take_word("{")) {
        run_list(live);
        expect("}");
    } else if (take_word("if")) {
        run_if(live);
    } else if (take_word("while")) {
        run_loop(live, true);
    } else if (take_word("until")) {
        run_loop(live, false);
    } else if (take_word("for")) {
        run_for(live);
    } else {
        return false;
    }
    return true;
}

static int run_chain(bool live)
{
    int code = run_pipeline(live);
    for (;;) {
        skip_blanks();
        bool both = !strncmp(at, "&&", 2);
        if (!both && strncmp(at, "||", 2) != 0)
            return code;
        at += 2;
        skip_separators();
        bool runs = live && (code == 0) == both;
        int next = run_pipeline(runs);
        code = runs ? next : code;
    }
}

/* Run commands up to the end or a word that ends a list, or only pass over them; the code of the last. */
static int run_list(bool live)
{
    int code = 0;
    while (!is_at_end()) {
        code = run_chain(live);
        if (live) {
            status = code;
            run_traps();
        }
        skip_blanks();
        if (*at && *at != ';' && *at != '\n' && !is_at_end())
            exit(complain(at, "not understood", MISUSED));
    }
    return code;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    return run_simple(count, words);
}
