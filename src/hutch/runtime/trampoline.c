/*
 * The last thing that runs before the container's program: a freestanding program of about a kilobyte.
 *
 * Python builds an image of it in a sealed memfd, its configuration appended, and executes that. From then on the
 * interpreter is gone from the process, so that neither /proc/<pid>/exe nor "#!/proc/self/exe" can name it
 * (CVE-2019-5736), and a created container waits for `start` as a process of a few pages.
 *
 * In this order: not dumpable; wait for one byte on the exec fifo; set the LSM label of the next exec; load the seccomp
 * program; execve(argv[0], argv + 1, envp). The arguments and the environment are the program's own.
 *
 * Build: see tests/unit/runtime/test_trampoline.py; the bytes are checked in as trampoline_image.py.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

/* The last bytes of the segment. Offsets count from its first byte. */
struct config {
	int wait_fd;       /* -1: do not wait */
	int proc_fd;       /* -1: no label; else the root of a procfs */
	u32 attr_offset;   /* path below proc_fd, NUL terminated */
	u32 label_offset;
	u32 label_length;
	u32 filter_offset; /* struct sock_filter[] */
	u32 filter_count;  /* 0: no seccomp */
	u32 filter_flags;
};

struct sock_fprog {
	u16 count;
	const void *filter;
};

struct program_header {
	u32 type, flags;
	u64 offset, address, physical, file_size, memory_size, align;
};

extern const u8 __ehdr_start[];

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, EXECVE = 59, FCNTL = 72, PRCTL = 157, EXIT = 231, OPENAT = 257, SECCOMP = 317 };

static long call(long number, u64 a, u64 b, u64 c, u64 d)
{
	long result;
	register u64 r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n\thlt\n");
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, EXECVE = 221, FCNTL = 25, PRCTL = 167, EXIT = 94, OPENAT = 56, SECCOMP = 277 };

static long call(long number, u64 a, u64 b, u64 c, u64 d)
{
	register u64 x8 __asm__("x8") = (u64)number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return (long)x0;
}

__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x0, sp\n\tbl begin\n\tbrk #1\n");
#else
#error "no system calls known for this architecture"
#endif

enum { ENOENT = 2, EINTR = 4, E2BIG = 7, ENOEXEC = 8, ENOMEM = 12, EACCES = 13, ENOTDIR = 20, EINVAL = 22,
       ETXTBSY = 26, ELOOP = 40, EPERM = 1, EIO = 5 };
enum { PR_SET_DUMPABLE = 4, O_WRONLY_CLOEXEC = 02000001, SECCOMP_SET_MODE_FILTER = 1, STDERR = 2,
       F_SETFD = 2, FD_CLOEXEC = 1 };

static u64 length(const char *text)
{
	u64 count = 0;
	while (text[count])
		count++;
	return count;
}

static void say(const char *text)
{
	call(WRITE, STDERR, (u64)text, length(text), 0);
}

static const char *text_of(long error)
{
	switch (error) {
	case EPERM: return "operation not permitted";
	case ENOENT: return "no such file or directory";
	case EIO: return "input/output error";
	case E2BIG: return "argument list too long";
	case ENOEXEC: return "exec format error";
	case ENOMEM: return "cannot allocate memory";
	case EACCES: return "permission denied";
	case ENOTDIR: return "not a directory";
	case EINVAL: return "invalid argument";
	case ETXTBSY: return "text file busy";
	case ELOOP: return "too many levels of symbolic links";
	default: return 0;
	}
}

static void __attribute__((noreturn)) fail(const char *what, const char *path, long error)
{
	const char *text = text_of(error);
	char digits[16], *digit = digits + sizeof digits - 1;

	say(what);
	say(path);
	say(": ");
	if (!text) {
		*digit = 0;
		do
			*--digit = (char)('0' + error % 10);
		while (error /= 10);
		say("error ");
		text = digit;
	}
	say(text);
	say("\n");
	for (;;)
		call(EXIT, (u64)(error == ENOENT || error == ENOTDIR ? 127 : 126), 0, 0, 0);
}

void __attribute__((noreturn, used)) begin(u64 *stack)
{
	u64 count = stack[0];
	char **arguments = (char **)(stack + 1), **environment = arguments + count + 1;
	const struct program_header *header = (const void *)(__ehdr_start + 64);
	long result;
	u8 byte;

	call(PRCTL, PR_SET_DUMPABLE, 0, 0, 0);
	while (header->type != 1)
		header++;
	const struct config *config = (const void *)(__ehdr_start + header->file_size - sizeof *config);

	if (config->wait_fd >= 0) {
		do
			result = call(READ, (u64)config->wait_fd, (u64)&byte, 1, 0);
		while (result == -EINTR);
		if (result != 1)
			fail("wait for start", "", result < 0 ? -result : EIO);
		/* Who started us waits until nobody reads: until the program is there, or we are gone. */
		call(FCNTL, (u64)config->wait_fd, F_SETFD, FD_CLOEXEC, 0);
	}
	if (config->proc_fd >= 0) {
		const char *path = (const char *)(__ehdr_start + config->attr_offset);
		long fd = call(OPENAT, (u64)config->proc_fd, (u64)path, O_WRONLY_CLOEXEC, 0);
		if (fd < 0)
			fail("open /proc/", path, -fd);
		result = call(WRITE, (u64)fd, (u64)(__ehdr_start + config->label_offset), config->label_length, 0);
		if (result != (long)config->label_length)
			fail("write /proc/", path, result < 0 ? -result : EIO);
		call(CLOSE, (u64)fd, 0, 0, 0);
		call(CLOSE, (u64)config->proc_fd, 0, 0, 0);
	}
	if (config->filter_count) {
		struct sock_fprog program = { (u16)config->filter_count, __ehdr_start + config->filter_offset };
		result = call(SECCOMP, SECCOMP_SET_MODE_FILTER, config->filter_flags, (u64)&program, 0);
		if (result < 0)
			fail("load seccomp program", "", -result);
	}
	result = call(EXECVE, (u64)arguments[0], (u64)(arguments + 1), (u64)environment, 0);
	fail("exec ", arguments[0], -result);
}
