/*
 * The init of `hutch run --init`: a freestanding program of about two kilobytes, mounted at /dev/init.
 *
 *     /dev/init -- PROGRAM [ARGUMENT...]
 *
 * It starts the program in a process group of its own (the terminal's foreground, if there is one), passes every signal
 * it gets on to it, reaps whatever is orphaned in the container, and ends as the program does: its exit status, or
 * 128 + the signal. A program without a slash is looked up in PATH. 127: not found; 126: not executable.
 *
 * Build: python tools/build_trampoline.py; the bytes are checked in as container_init_image.py.
 */

typedef unsigned long u64;

#if defined(__x86_64__)
enum {
	WRITE = 1, SIGPROCMASK = 14, IOCTL = 16, GETPID = 39, CLONE = 56, EXECVE = 59, WAIT4 = 61, KILL = 62, SETPGID = 109,
	SIGTIMEDWAIT = 128, EXIT = 231,
};

static long call(long number, u64 a, u64 b, u64 c, u64 d)
{
	long result;
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\thlt\n");
#elif defined(__aarch64__)
enum {
	WRITE = 64, SIGPROCMASK = 135, IOCTL = 29, GETPID = 172, CLONE = 220, EXECVE = 221, WAIT4 = 260, KILL = 129, SETPGID = 154,
	SIGTIMEDWAIT = 137, EXIT = 94,
};

static long call(long number, u64 a, u64 b, u64 c, u64 d)
{
	register u64 x8 __asm__("x8") = number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl begin\n");
#else
#error "no system call numbers for this machine"
#endif

enum { ENOENT = 2, EACCES = 13, ENOTDIR = 20 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2, SIGCHLD = 17, WNOHANG = 1, TIOCSPGRP = 0x5410, PATH_MAX = 4096 };
/* Those that tell of a fault of our own must not be blocked, and stopping from a terminal is for the program. */
enum { SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11, SIGTTIN = 21, SIGTTOU = 22, SIGSYS = 31 };
#define BIT(number) (1UL << ((number) - 1))
#define OURS (BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGABRT) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGSEGV) | BIT(SIGSYS))

static void say(const char *text)
{
	u64 length = 0;
	while (text[length])
		length++;
	call(WRITE, 2, (u64)text, length, 0);
}

static const char *path_of(char **environment)
{
	for (; *environment; environment++) {
		const char *entry = *environment;
		if (entry[0] == 'P' && entry[1] == 'A' && entry[2] == 'T' && entry[3] == 'H' && entry[4] == '=')
			return entry + 5;
	}
	return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

static int has_slash(const char *text)
{
	for (; *text; text++)
		if (*text == '/')
			return 1;
	return 0;
}

/* As execvpe(3), but without a shell for what is no program. Returns the error, positive. */
static long execute(char **arguments, char **environment)
{
	static char whole[PATH_MAX];
	const char *name = arguments[0], *path = path_of(environment);
	long worst = ENOENT;

	if (has_slash(name))
		return -call(EXECVE, (u64)name, (u64)arguments, (u64)environment, 0);
	for (;;) {
		u64 length = 0;
		const char *rest = name;
		while (*path && *path != ':' && length < PATH_MAX - 2)
			whole[length++] = *path++;
		if (!length)
			whole[length++] = '.';
		whole[length++] = '/';
		while (*rest && length < PATH_MAX - 1)
			whole[length++] = *rest++;
		whole[length] = 0;
		if (!*rest) {
			long error = -call(EXECVE, (u64)whole, (u64)arguments, (u64)environment, 0);
			if (error != ENOENT && error != ENOTDIR)
				worst = error;
		}
		while (*path && *path != ':')
			path++;
		if (!*path++)
			return worst;
	}
}

static void become(char **arguments, char **environment, u64 mask)
{
	long error;
	int group = call(GETPID, 0, 0, 0, 0);

	/* The foreground of the terminal, if stdin is one; SIGTTOU is still blocked. */
	if (!call(SETPGID, 0, 0, 0, 0))
		call(IOCTL, 0, TIOCSPGRP, (u64)&group, 0);
	call(SIGPROCMASK, SIG_SETMASK, (u64)&mask, 0, sizeof mask);
	error = execute(arguments, environment);
	say("init: ");
	say(arguments[0]);
	say(error == ENOENT ? ": no such file or directory\n" : error == EACCES ? ": permission denied\n" : ": cannot be executed\n");
	call(EXIT, error == ENOENT || error == ENOTDIR ? 127 : 126, 0, 0, 0);
}

/* Collects the dead; the program's status, or -1 while it lives. */
static int reap(long program)
{
	int ended = -1, status;
	long pid;

	while ((pid = call(WAIT4, -1UL, (u64)&status, WNOHANG, 0)) > 0)
		if (pid == program)
			ended = status & 0x7f ? 128 + (status & 0x7f) : (status >> 8) & 0xff;
	return ended;
}

__attribute__((used)) void begin(u64 *stack)
{
	char **arguments = (char **)(stack + 1), **environment = arguments + stack[0] + 1;
	u64 all = ~OURS, before = 0;
	long program;

	arguments++;
	if (*arguments && (*arguments)[0] == '-' && (*arguments)[1] == '-' && !(*arguments)[2])
		arguments++;
	if (!*arguments) {
		say("init: no program given\n");
		call(EXIT, 125, 0, 0, 0);
	}
	call(SIGPROCMASK, SIG_BLOCK, (u64)&all, (u64)&before, sizeof all);
	program = call(CLONE, SIGCHLD, 0, 0, 0);
	if (program == 0)
		become(arguments, environment, before);
	if (program < 0) {
		say("init: cannot fork\n");
		call(EXIT, 125, 0, 0, 0);
	}
	for (;;) {
		long number = call(SIGTIMEDWAIT, (u64)&all, 0, 0, sizeof all);
		if (number == SIGCHLD) {
			int status = reap(program);
			if (status >= 0)
				call(EXIT, status, 0, 0, 0);
		} else if (number > 0 && number != SIGTTIN && number != SIGTTOU) {
			call(KILL, program, number, 0, 0);
		}
	}
}
