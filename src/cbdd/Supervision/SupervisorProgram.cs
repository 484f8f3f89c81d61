using Cbd.Memory;
using Cbd.Memory.Store;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary><c>cbdd --supervise</c> from its words to its exit code.</summary>
internal static class SupervisorProgram
{
    /// <summary>The option. It takes no value, so the worker's words are those without it.</summary>
    public const string Option = "--supervise";

    private const string OwnProgram = "/proc/self/exe";
    private const string Name = "cbdd";

    /// <summary>This process runs from a copy of its program in memory.</summary>
    public static bool IsFromMemory
    {
        get
        {
            if (FileDescriptor.TryOpen(OwnProgram, OpenFlags.ReadOnly, 0, out var program) != 0)
                return false;
            using (program)
                return DescriptorKinds.Of(program!) == DescriptorKind.Memory;
        }
    }

    /// <summary>
    /// Puts a copy of the program in memory in the place of this process: neither it nor a worker waits for a disk then, which may be a device of the
    /// worker. Returns if that cannot be.
    /// </summary>
    public static void MoveToMemory(string[] words)
    {
        using var copy = MemoryFile.TryCopyProgram(OwnProgram, Name);
        if (copy is not null)
            _ = ProcessMemory.Restart($"/proc/self/fd/{copy.Number}", [Name, .. words]);
    }

    /// <summary>Runs the supervisor.</summary>
    public static int Run(string[] words, DaemonOptions options, ILogger logger)
    {
        ProcessMemory.SetName(Name);
        using var program = FileDescriptor.Open(OwnProgram, OpenFlags.ReadOnly);
        if (!IsFromMemory)
            logger.LogWarning("the program cannot be copied to memory: if its file is on a device of this daemon, a restart may hang; allow memory files that are programs (sysctl vm.memfd_noexec=0)");
        // The worker says what is missing for it.
        _ = ProcessMemory.LockAll();
        List<(string, FileDescriptor)> activation = [];
        using var upstream = Upstream.FromEnvironment();
        try
        {
            foreach (var given in GivenDescriptors.TakeFromEnvironment())
            {
                if (StoredName.KindOf(given.Name) is not null)
                    throw new CbdException(CbdErrorKind.Invalid, $"the sockets of the service manager cannot be used: descriptor {given.Number} is named '{given.Name}', and such names are those of descriptors that cbdd --supervise keeps: give its socket unit another FileDescriptorName=, which begins otherwise");
                activation.Add((given.Name, GivenDescriptors.TryOwn(given)
                    ?? throw new CbdException(CbdErrorKind.Invalid, $"the sockets of the service manager cannot be used: descriptor {given.Number} ('{given.Name}') is no socket; pass listening stream sockets alone")));
            }

            // What a worker would refuse is refused before anything is made.
            _ = Daemon.SocketPath(options);
            Daemon.CheckMachine();
            OwnedDirectory.Prepare(options.RunDirectory, Daemon.RunDirectoryName, Daemon.RunDirectoryOption, OptionsOfRights.Read(options).Access.Trust);
            using var supervisor = new Supervisor(program, [Name, .. words.Where(word => word != Option)], activation, options.RunDirectory, upstream, logger);
            ProcessSignals.Start(supervisor.Take);
            return supervisor.Run();
        }
        finally
        {
            foreach (var (_, descriptor) in activation)
                descriptor.Dispose();
        }
    }
}
