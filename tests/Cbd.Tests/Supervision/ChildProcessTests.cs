using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>What a program has that was started by the shim, and how its end is told.</summary>
public sealed class ChildProcessTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void It_has_the_descriptors_in_their_order_and_nothing_else()
    {
        // As many as are open anyway, and one that is not private to this process.
        using FileDescriptor first = Open("first"), second = Open("second"), other = Open("other");
        other.SetInherited(true);
        string answer = RunShell("for f in /proc/self/fd/*; do echo \"${f##*/} $(readlink $f)\"; done", [second, first, second]);
        string[] above = [.. answer.Split('\n').Where(line => line.Length > 0 && int.Parse(line.Split(' ')[0]) > 2)];
        // The shell has a descriptor of the directory that it reads, or not.
        Assert.Equal(
            [$"3 {_directory.PathOf("second")}", $"4 {_directory.PathOf("first")}", $"5 {_directory.PathOf("second")}"],
            above.Where(line => !line.Contains("/proc/", StringComparison.Ordinal) && !line.EndsWith(' ')));
    }

    /// <summary>A filter refuses close_range, as that of a container may, and the limit of open files is below what is open.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(38)]
    public void It_has_nothing_else_where_a_call_is_refused(int errno)
    {
        const string python = "/usr/bin/python3";
        Assert.SkipUnless(File.Exists(python), "python3 is not installed");
        string shim = Path.Combine(AppContext.BaseDirectory, "libcbdnative.so");
        Assert.True(File.Exists(shim), shim);
        string script = _directory.PathOf("refused.py");
        File.WriteAllText(script, $$"""
            import ctypes, os, resource, struct, sys
            shim = ctypes.CDLL("{{shim}}")
            libc = ctypes.CDLL(None, use_errno=True)
            answer = os.open("{{_directory.PathOf("answer")}}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            for number in (7, 30, 200):
                os.dup2(0, number, inheritable=True)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            # Load the number of the call; if it is close_range, the errno; else go on.
            program = [(0x20, 0, 0, 0), (0x15, 0, 1, 436), (0x06, 0, 0, 0x00050000 | {{errno}}), (0x06, 0, 0, 0x7fff0000)]
            filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
            class Program(ctypes.Structure):
                _fields_ = [("length", ctypes.c_ushort), ("filters", ctypes.c_void_p)]
            assert libc.prctl(38, 1, 0, 0, 0) == 0
            assert libc.prctl(22, 2, ctypes.byref(Program(len(program), ctypes.addressof(filters))), 0, 0) == 0, ctypes.get_errno()
            assert libc.syscall(436, 1000, 1000, 4) == -1
            class Spawn(ctypes.Structure):
                _fields_ = [("path", ctypes.c_char_p), ("arguments", ctypes.c_void_p), ("changes", ctypes.c_void_p), ("numbers", ctypes.c_void_p),
                            ("descriptors", ctypes.POINTER(ctypes.c_int)), ("counts", ctypes.c_uint * 3), ("program", ctypes.c_int)]
            words = (ctypes.c_char_p * 4)(b"sh", b"-c", b"ls -l /proc/$$/fd >&3", None)
            none = (ctypes.c_char_p * 1)(None)
            passed = (ctypes.c_int * 1)(answer)
            process = ctypes.c_int()
            spawn = Spawn(b"/bin/sh", ctypes.addressof(words), ctypes.addressof(none), ctypes.addressof(none), passed, (ctypes.c_uint * 3)(1, 0, 0), -1)
            child = shim.cbd_spawn(ctypes.byref(spawn), ctypes.byref(process))
            assert child > 0, child
            assert shim.cbd_await_end(child) == 0
            """);
        Assert.Equal(new ProcessEnd(0, null), EndOf($"{python} {script}"));
        string[] numbers = [.. File.ReadAllLines(_directory.PathOf("answer")).Where(line => line.Contains(" -> ", StringComparison.Ordinal))
            .Select(line => line.Split(" -> ")[0].Split(' ')[^1]).Where(number => int.Parse(number) > 3)];
        // The shell has its own of number 10.
        Assert.All(numbers, number => Assert.Equal("10", number));
    }

    [Fact]
    public void Places_that_its_descriptors_are_to_have_may_be_taken_by_others_of_them()
    {
        // So many places that the numbers of the files are among them, and numbers that are free.
        const int fileCount = 50, placeCount = 2000;
        FileDescriptor[] files = [.. Enumerable.Range(0, fileCount).Select(i => Open($"f{i}"))];
        try
        {
            FileDescriptor[] places = [.. Enumerable.Range(0, placeCount).Select(i => files[(placeCount - i) % fileCount])];
            string answer = RunShell("ls -l /proc/$$/fd", places);
            var found = new Dictionary<int, string>();
            foreach (string line in answer.Split('\n').Where(line => line.Contains(" -> ", StringComparison.Ordinal)))
            {
                string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
                found[int.Parse(words[^3])] = words[^1];
            }

            for (int i = 0; i < placeCount; i++)
                Assert.Equal(_directory.PathOf($"f{(placeCount - i) % fileCount}"), found.GetValueOrDefault(3 + i));
        }
        finally
        {
            Array.ForEach(files, file => file.Dispose());
        }
    }

    [Fact]
    public void It_has_the_environment_with_the_changes_and_its_own_number_in_it()
    {
        string answer = RunShell(
            "echo \"$$ $LISTEN_PID $WATCHDOG_PID $NEW ${PATH:+path} ${HOME:-none}\"", [],
            new() { ["NEW"] = "a=b c", ["HOME"] = null }, ["LISTEN_PID", "WATCHDOG_PID"]);
        string[] words = answer.TrimEnd('\n').Split(' ');
        Assert.Equal([words[0], words[0], words[0], "a=b", "c", "path", "none"], words);
    }

    [Fact]
    public void No_signal_is_blocked_or_ignored_in_it()
    {
        string answer = RunShell("grep -E '^Sig(Blk|Ign)' /proc/self/status", []);
        foreach (string line in answer.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            // The two of the C library's own, 32 and 33, and SIGINT, which may be ignored here.
            Assert.True((Convert.ToUInt64(line.Split('\t')[1], 16) & ~0x1_8000_0002UL) == 0, line);
    }

    [Fact]
    public void Its_end_is_told_by_code_or_by_signal()
    {
        Assert.Equal(new ProcessEnd(7, null), EndOf("exit 7"));
        Assert.Equal(new ProcessEnd(0, null), EndOf("exit 0"));
        Assert.Equal(new ProcessEnd(null, 9), EndOf("kill -KILL $$"));
        Assert.Equal(new ProcessEnd(255, null), EndOf("exit 255"));
    }

    [Fact]
    public void A_signal_reaches_it_and_its_descriptor_tells_its_end()
    {
        using ChildProcess child = Start("exec sleep 600", [], [], []);
        Assert.False(child.Process.WaitForExit(0));
        child.Process.Send(System.Runtime.InteropServices.PosixSignal.SIGTERM);
        Assert.True(child.Process.WaitForExit(60_000));
        Assert.Equal(new ProcessEnd(null, 15), child.AwaitEnd());
        // Nothing is left to be told.
        Assert.Equal(10, Assert.Throws<SystemCallException>(() => child.AwaitEnd()).Errno);
    }

    [Fact]
    public void What_is_no_program_is_an_error_and_leaves_no_child()
    {
        File.WriteAllText(_directory.PathOf("text"), "no program");
        using var text = FileDescriptor.Open(_directory.PathOf("text"), OpenFlags.ReadOnly);
        SystemCallException refused = Assert.Throws<SystemCallException>(() => ChildProcess.Start(new ChildStart { Program = text, Words = ["text"] }));
        Assert.Equal(Errno.EACCES, refused.Errno);
        File.SetUnixFileMode(_directory.PathOf("text"), (UnixFileMode)0x1ed);
        refused = Assert.Throws<SystemCallException>(() => ChildProcess.Start(new ChildStart { Program = text, Words = ["text"] }));
        Assert.Equal(8, refused.Errno);
    }

    [Fact]
    public void A_program_runs_from_its_copy_in_memory_which_nobody_can_change()
    {
        using FileDescriptor? copy = MemoryFile.TryCopyProgram("/bin/sh", "copy");
        Assert.SkipWhen(copy is null, "this kernel allows no programs in memory files");
        using var child = ChildProcess.Start(new ChildStart { Program = copy, Words = ["sh", "-c", "exit 5"] });
        Assert.Equal(new ProcessEnd(5, null), child.AwaitEnd());
        Assert.Throws<SystemCallException>(() => copy.Truncate(0));
    }

    private FileDescriptor Open(string name)
    {
        File.WriteAllText(_directory.PathOf(name), "");
        return FileDescriptor.Open(_directory.PathOf(name), OpenFlags.ReadOnly);
    }

    private static ProcessEnd EndOf(string script)
    {
        using ChildProcess child = Start(script, [], [], []);
        return child.AwaitEnd();
    }

    private string RunShell(string script, FileDescriptor[] descriptors, Dictionary<string, string?>? changes = null, string[]? numbers = null)
    {
        string answer = _directory.PathOf("answer");
        using ChildProcess child = Start($"{{ {script}; }} >{answer}", descriptors, changes ?? [], numbers ?? []);
        Assert.Equal(new ProcessEnd(0, null), child.AwaitEnd());
        return File.ReadAllText(answer);
    }

    private static ChildProcess Start(string script, FileDescriptor[] descriptors, Dictionary<string, string?> changes, string[] numbers)
    {
        using var shell = FileDescriptor.Open("/bin/sh", OpenFlags.ReadOnly);
        return ChildProcess.Start(new ChildStart
        {
            Program = shell,
            Words = ["sh", "-c", script],
            Descriptors = descriptors,
            Environment = changes,
            ProcessIdVariables = numbers,
        });
    }
}
