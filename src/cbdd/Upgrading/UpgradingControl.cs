using Cbd.Control;
using Cbd.Host;
using Cbd.Memory;
using Cbd.Programs.Daemon.Supervision;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Upgrading;

/// <summary>
/// The operations on the daemon itself. An upgrade gives a copy of the new program to the supervisor, which has this process park, starts the
/// new program, and, if that ends before it is ready, the old one again. Thread-safe.
/// </summary>
internal sealed class UpgradingControl(IControl inner, Inherited inherited, ILogger logger) : IControl
{
    private const string CopyName = "cbdd";

    private static readonly byte[] s_magic = "\u007fELF"u8.ToArray();

    private int _isUpgrading;
    private volatile bool _isParking;

    /// <summary>This process leaves what it serves to the next one: nothing is begun or stopped any more.</summary>
    public bool IsParking
    {
        get => _isParking;
        set => _isParking = value;
    }

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (IsParking)
            throw new CbdException(CbdErrorKind.Failed, "this process makes way for the next one: try again in a moment") { MayPass = true };
        if (operation == (Operation)Operations.GetDaemon)
            return (TAnswer)(object)Describe();
        return request is UpgradeRequest upgrade ? (TAnswer)(object)Upgrade(upgrade) : inner.Execute(operation, request);
    }

    private DaemonDescription Describe() => new()
    {
        Version = ProductVersion.Text,
        Pid = Environment.ProcessId,
        Ready = inherited.IsReady,
        Supervised = inherited.Store is { IsGone: false } && inherited.Words.Program is not null,
        Restarts = inherited.Words.Restarts,
        UpgradeFailure = inherited.Words.UpgradeFailure,
    };

    private DaemonDescription Upgrade(UpgradeRequest request)
    {
        if (request.Caller is { } caller)
            throw new CbdException(CbdErrorKind.Denied, $"uid {caller.UserId} may not upgrade the daemon: ask root or the daemon's user for it");
        if (inherited.Words.Program is not { } own || !inherited.MayPark())
            throw new CbdException(CbdErrorKind.Unsupported, "this daemon has no supervisor, and its devices end with it: start it as cbdd --supervise, or restart it");
        if (!request.Force && FindMemoryDisk() is { } disk)
            throw new CbdException(CbdErrorKind.Busy, $"{disk} is a disk in memory, which begins anew with the next process: stop it first, or give --force");
        if (!inherited.IsReady)
            throw new CbdException(CbdErrorKind.Busy, "this process is not ready yet: see cbdctrl wait, and try again then") { MayPass = true };
        if (Interlocked.Exchange(ref _isUpgrading, 1) != 0)
            throw new CbdException(CbdErrorKind.Busy, "an upgrade is under way: wait until cbdctrl daemon info shows another pid") { MayPass = true };
        try
        {
            var path = request.Program ?? own;
            CheckFile(path);
            using var program = MemoryFile.TryCopyProgram(path, CopyName)
                ?? throw new CbdException(CbdErrorKind.Exhausted, $"'{path}' cannot be copied to memory: free memory, or allow memory files that are programs (sysctl vm.memfd_noexec=0)");
            StartCheck.Run(program, path, Environment.GetCommandLineArgs().Skip(1));
            inherited.Store!.Remove(SupervisorWords.NextProgram);
            inherited.Store.Keep(SupervisorWords.NextProgram, program);
            inherited.Store.Confirm(SupervisorWords.NextProgram);
            logger.LogInformation("upgrade to '{Program}': this process leaves what it serves to that", path);
        }
        catch
        {
            inherited.Store!.Remove(SupervisorWords.NextProgram);
            Volatile.Write(ref _isUpgrading, 0);
            throw;
        }

        // The supervisor ends this process then, so the answer goes first.
        return Describe() with { Sent = () => inherited.Manager!.SayForSure(WorkerMessage.Upgrade) };
    }

    private static void CheckFile(string path)
    {
        var error = FileStatus.TryGet(path, out var status);
        if (error != 0)
            throw new CbdException(CbdErrorKind.NotFound, $"the program '{path}' cannot be looked at (errno {-error}): give the path of a cbdd with --program");
        if (status.Type != FileType.Regular || (File.GetUnixFileMode(path) & (UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute)) == 0)
            throw new CbdException(CbdErrorKind.Invalid, $"'{path}' is no file that may be executed: give the path of a cbdd with --program");
        Span<byte> magic = stackalloc byte[s_magic.Length];
        using var file = FileDescriptor.Open(path, OpenFlags.ReadOnly);
        if (file.Read(magic) != magic.Length || !magic.SequenceEqual(s_magic))
            // What interprets a script cannot open a copy in memory.
            throw new CbdException(CbdErrorKind.Invalid, $"'{path}' is no program but a text or something else: give the path of a cbdd with --program");
    }

    private string? FindMemoryDisk() => inner.Execute(Operations.ListTransports, new ControlRequest()).Where(t => t.TransportId >= 0)
        .SelectMany(t => inner.Execute(Operations.ListBackends, new ListRequest { Transport = t.TransportId }))
        .Where(b => b.Path.StartsWith("memory:", StringComparison.Ordinal))
        .Select(b => $"backend {b.BackendId} ('{b.Path}')")
        .FirstOrDefault();
}
