using System.Globalization;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Cbd.Control;
using Cbd.Control.Api.Client;
using Cbd.Control.Server;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.State;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Programs.Daemon.Upgrading;
using Cbd.Host;
using Cbd.Host.Attachments;
using Cbd.Host.Logs;
using Cbd.Host.Threads;
using Cbd.Host.Wanted;
using Cbd.Protocol;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>
/// One life of a daemon: directories, node, control socket, what the record wants, verbs, wait, drain. The socket answers at
/// once; 'cbdctrl wait' waits until all that is wanted is there.
/// </summary>
internal sealed class Daemon(DaemonOptions options, LogQueue logs, Inherited inherited, Func<NodeOptions, GivenSockets, KeptSockets, INode> createNode)
{
    /// <summary>The name of the service manager's socket for the control API.</summary>
    private const string ControlSocketName = "control";

    /// <summary>What was being started has given up by then: its transport was left.</summary>
    private const int AttemptsMs = 5_000;

    /// <summary>What messages call the run directory, and the option that names it.</summary>
    public const string RunDirectoryName = "run directory";
    public const string RunDirectoryOption = "--run-dir";

    /// <summary>Longest time to leave what is served in order.</summary>
    private const int ParkMs = 5_000;

    /// <summary>Of sockaddr_un, without the zero at its end.</summary>
    private const int MostSocketPathBytes = 107;

    private readonly ILogger _logger = logs.CreateLogger("cbdd");

    /// <summary>Runs until a signal; returns the exit code. Throws <see cref="CbdException"/> if it cannot start.</summary>
    public int Run()
    {
        var socketPath = SocketPath(options);
        CheckMachine();
        using var stop = new StopSignal();
        var verbs = VerbSet.ForDaemon();
        var lines = options.RunLines.Select(verbs.ParseLine).ToList();
        var rights = OptionsOfRights.Read(options);
        using var run = OwnedDirectory.Take(options.RunDirectory, RunDirectoryName, RunDirectoryOption, rights.Peers.FileGroup, rights.IsRunDirectoryForAll, rights.Access.Trust);
        using var state = OwnedDirectory.Take(options.StateDirectory, "state directory", "--state-dir", trust: rights.Access.Trust);
        state.CheckFiles("host-uuid", "wanted.json", "state.json");
        using var socket = TakeControlSocket(socketPath);
        if (socket is null)
            RemoveLeftSocket(socketPath);

        var record = OpenRecord(state.Path, rights.Access.Trust);
        // Up to here nothing is done that a signal would have to undo.
        Action hangUp = static () => { };
        Action dump = static () => { };
        ProcessSignals.Start(signal =>
        {
            if (signal == PosixSignal.SIGHUP)
                Volatile.Read(ref hangUp)();
            else if (signal == PosixSignal.SIGQUIT)
                Volatile.Read(ref dump)();
            else
                stop.Handle(signal);
        });
        inherited.SayHandlers();
        PoolThreads.Start();
        Action heard = static () => { };
        var uuid = HostIdentity.LoadOrCreate(state.Path, rights.Access.Trust);
        using var lives = new KeptLives(inherited.Store, uuid, line => _logger.LogWarning("{Line}", line));
        foreach (var name in lives.Waiting)
            record.TryKeptAgain(name);
        using var node = createNode(new NodeOptions
        {
            Kept = lives,
            RunDirectory = run.Path,
            StateDirectory = state.Path,
            DisksDirectory = options.DisksDirectory,
            HostUuid = uuid,
            Access = rights.Access,
            Logger = logs.CreateLogger("node"),
            BeatMs = options.BeatMs,
            DeadMs = options.DeadMs,
            FenceMs = options.FenceMs,
            MaxTransports = options.MaxTransports,
            IsNameReserved = record.IsNameReserved,
            Moved = () => heard(),
            BackendLost = (region, backend, reason) =>
            {
                record.SetBackendPending(region, backend, reason);
                Volatile.Read(ref hangUp)();
            },
            // The disk of the record may be slow.
            DeviceFailed = (name, reason) => PoolWork.Queue(() => record.SetFailed(name, reason)),
        }, inherited.Given, inherited.Kept);
        using var alive = SignsOfLife.Start(node, inherited);
        using var flights = new FlightFiles(node, state.Path, _logger);
        Volatile.Write(ref dump, new FlightSignal(flights, _logger).Handle);
        // Until the lines were done, what one of them wanted may be wanted again.
        var areLinesDone = false;
        void CloseUnwanted()
        {
            bool IsWanted(string name) => record.Wants(name, Volatile.Read(ref areLinesDone));
            inherited.Kept.CloseUnwanted(IsWanted);
            node.EndLives(IsWanted);
        }

        using var reconciler = new Reconciler(new CheckedControl(node), record, _logger) { IsKept = lives.IsWaiting, Settled = CloseUnwanted };
        heard = reconciler.Hear;
        Volatile.Write(ref hangUp, reconciler.Wake);
        node.KeepNames(record.KernelNames);
        CloseUnwanted();
        var recording = new RecordingControl(node, record)
        {
            IsStarting = true,
            Moved = () =>
            {
                reconciler.Wake();
                node.KeepNames(record.KernelNames);
                CloseUnwanted();
            },
        };
        var upgrading = new UpgradingControl(recording, inherited, _logger);
        var gate = new CheckedControl(upgrading);
        ControlServer? server = null;
        // Ends this process, and leaves all it serves to the next one. It is a kill, which may come at any time, but for those who are waited for.
        void Park(string why, int exitCode)
        {
            _logger.LogInformation("{Reason}: the next process of this daemon goes on with what this one serves", why);
            stop.IsIgnored = upgrading.IsParking = true;
            reconciler.End();
            ParkAll(node);
            logs.Dispose();
            Environment.Exit(exitCode);
        }

        try
        {
            server = ControlServer.StartAsync(gate, socketPath, rights.Peers, logs, socket).GetAwaiter().GetResult();
            _logger.LogInformation("cbdd {Version} pid {Pid} answers on {Socket}", ProductVersion.Text, Environment.ProcessId, socketPath);
            reconciler.Pass(() => stop.IsSet);
            reconciler.Start();
            var runLines = new RunLines(node, record, recording, stop, _logger) { Waits = inherited.SayReady, WereDone = inherited.Words.IsFollowed };
            foreach (var line in lines)
                runLines.Do(line);
            runLines.SayHeld();
            recording.IsStarting = false;
            Volatile.Write(ref areLinesDone, true);
            CloseUnwanted();
            inherited.SayStarted();
            var signal = stop.Wait();
            if (signal == PosixSignal.SIGTERM && inherited.MayPark())
                Park("SIGTERM", SupervisorRules.ParkedExitCode);
            inherited.Manager?.Say("STOPPING=1");
            _logger.LogInformation("{Signal}: stopping", signal == ProcessSignals.EndForGood ? "SIGUSR1" : $"{signal}");
        }
        catch (Exception e) when (!stop.IsSet && inherited.Words.IsFollowed && inherited.MayPark())
        {
            // What is served already is the next one's, which may do better: its users must not lose it for what another thing lacks.
            Park(e.Message, e is CbdException failure ? ErrorKinds.ExitCodeOf(failure) : ErrorKinds.ExitCode(CbdErrorKind.Failed));
            throw;
        }
        catch
        {
            End(server, reconciler);
            Draining.Drain(node, _logger);
            // The next worker may do better: clients and users of what was not started wait for it.
            if (stop.IsSet || inherited.Store is not { IsGone: false })
                inherited.Kept.CloseUnwanted(static _ => false);
            throw;
        }

        End(server, reconciler);
        // Before the transports are left, so that their claims are given up.
        node.EndLives(static _ => false);
        var isClean = Draining.Drain(node, _logger);
        // A start that has just given up may have handed a life back.
        reconciler.AwaitAttempts(AttemptsMs);
        // Nobody is there any more who would answer their clients.
        inherited.Kept.CloseUnwanted(static _ => false);
        node.EndLives(static _ => false);
        return isClean ? ErrorKinds.ExitSuccess : ErrorKinds.ExitCode(CbdErrorKind.Failed);
    }

    /// <summary>Leaves what is served in order, as far as that can be done soon.</summary>
    private void ParkAll(INode node)
    {
        try
        {
            // Whatever holds it up: the rest is as after a kill.
            if (!NeededThread.Start("cbd-park", node.Park).Join(ParkMs))
                _logger.LogWarning("what is served is not left in order after {Milliseconds} ms", ParkMs);
        }
        catch (Exception e)
        {
            _logger.LogWarning("what is served is not left in order: {Reason}", e.Message);
        }
    }

    /// <summary>Nothing more is begun. What is being started gives up when its transport is left.</summary>
    private void End(ControlServer? server, Reconciler reconciler)
    {
        reconciler.End();
        try
        {
            server?.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidOperationException)
        {
            // The socket was taken away, say: what is served is stopped all the same.
            _logger.LogWarning("the control socket ended with: {Reason}", e.Message);
        }
    }

    /// <summary>Where the control socket goes. Throws, before anything is made, if the kernel takes no path of that length.</summary>
    public static string SocketPath(DaemonOptions options)
    {
        var path = Path.Combine(options.RunDirectory, RunDirectories.SocketName);
        var length = Encoding.UTF8.GetByteCount(path);
        return length <= MostSocketPathBytes
            ? path
            : throw new CbdException(CbdErrorKind.Invalid, $"the path of the control socket '{path}' has {length} bytes and the kernel takes {MostSocketPathBytes}: give a shorter --run-dir");
    }

    /// <summary>What a daemon needs of this machine, asked before anything is made.</summary>
    public static void CheckMachine()
    {
        if (ProcessLimits.AddressSpace < ProcessLimits.LeastAddressSpace)
            throw new CbdException(CbdErrorKind.Exhausted, $"the limit of address space is {ProcessLimits.AddressSpace} bytes, and cbdd needs at least {ProcessLimits.LeastAddressSpace}: raise it (LimitAS= of the unit, ulimit -v)");
        if (ProcessLimits.OpenFiles < ProcessLimits.LeastOpenFiles)
            throw new CbdException(CbdErrorKind.Exhausted, $"the limit of open files is {ProcessLimits.OpenFiles}, and cbdd needs at least {ProcessLimits.LeastOpenFiles}: raise it (LimitNOFILE= of the unit, ulimit -n)");
        _ = ProcessIdentity.BootId;
        try
        {
            _ = Guid.NewGuid();
        }
        catch (CryptographicException e)
        {
            throw new CbdException(CbdErrorKind.Unsupported, "there are no random numbers here: give this container the node /dev/urandom", e);
        }
    }

    /// <summary>Removes the socket of a daemon that was killed: the lock of its directory is ours. Nothing else is removed.</summary>
    private static void RemoveLeftSocket(string path)
    {
        var error = FileStatus.TryGet(path, out var status, followLinks: false);
        if (error == -Errno.ENOENT)
            return;
        if (error == 0 && status.Type != FileType.Socket)
            throw new CbdException(CbdErrorKind.Busy, $"'{path}' is where the control socket belongs, and it is no socket: move it away, or give another --run-dir");
        // The lock says that no cbdd has the directory; another program may listen there.
        var address = new UnixDomainSocketEndPoint(path).Serialize();
        if (StreamSocket.Probe(address.Buffer.Span[..address.Size]) is not (Errno.ECONNREFUSED or Errno.ENOENT))
            throw new CbdException(CbdErrorKind.Busy, $"somebody else listens on '{path}', where the control socket belongs: end that program, or give another --run-dir");
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"the socket '{path}' that a killed cbdd left cannot be removed: {e.Message}: remove it, or give another --run-dir", e);
        }
    }

    /// <summary>
    /// The socket that the service manager opened for the control API, if it did; clients look for it at
    /// <paramref name="path"/> alone.
    /// </summary>
    private StreamSocket? TakeControlSocket(string path)
    {
        if (!inherited.Given.Has(ControlSocketName))
            return null;
        var socket = inherited.Given.Take(ControlSocketName, "the control socket");
        var place = socket.GetPlace();
        if (place?.UnixPath == path)
            return socket;
        socket.Dispose();
        throw new CbdException(CbdErrorKind.Invalid,
            $"socket '{ControlSocketName}' of the service manager is bound to '{place?.UnixPath ?? place?.Address?.ToString()}', and clients look for '{path}': set ListenStream= to that, or --run-dir to the other's directory");
    }

    /// <summary>
    /// The record, with what is held of it: all, if this run was told so, and what only lines of an earlier command line wanted. Throws,
    /// and changes nothing, if it cannot be read, or another machine has written it.
    /// </summary>
    private StateRecord OpenRecord(string directory, OwnerTrust trust)
    {
        var machine = MachineFiles.Read();
        var file = new StateFile(directory, machine, trust);
        var entries = file.Read();
        if (!options.AdoptRecord && WantedRules<SafePolicy>.FindForeign(machine, file.Writer) is { } difference)
        {
            throw new CbdException(CbdErrorKind.Denied,
                $"the record '{file.FilePath}' is another machine's ({difference}), which may still run: start cbdd with --adopt-record if that is gone and this one takes its place; if this is a copy of it, remove the state directory '{directory}'");
        }

        file.Reserve();
        var record = new StateRecord(file, _logger, [.. entries.Select(entry => entry with
        {
            Held = options.NoRestore ? "the record has it, and this cbdd was started with --no-restore"
                : entry.FromRun == true ? "only a --run line of an earlier cbdd wanted it"
                : null,
        })]);
        record.Keep();
        if (options.NoRestore && entries.Count > 0)
            _logger.LogWarning("the record '{Record}' has {Count} things of an earlier run, which are kept and not started, because of --no-restore: see cbdctrl wait", file.FilePath, entries.Count);
        return record;
    }
}
