using Cbd.Host.Attachments;
using Cbd.Host.Devices;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Records;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>Starts and stops devices on one transport. Thread-safe.</summary>
internal sealed class DeviceVerbs(Transport transport)
{
    private const int PollIntervalMs = 1;
    private const int ServeAgainMs = 100;

    /// <summary>
    /// Large requests go in pieces of this size: while one is sent to the client the next are on their way, and what is
    /// copied from one step to the next is still in the caches of its core.
    /// </summary>
    private const int PieceBytes = 128 << 10;

    private ILogger Logger => transport.Logger;

    /// <summary>A little longer than the channels have, so that the answer of a stop says what they wait for.</summary>
    private long StopWaitMs => transport.Node.Times.CloseMs + 1000;

    /// <param name="options">What is to be started.</param>
    /// <param name="nameOf">What the device with an id is called.</param>
    /// <param name="openExport">Opens the export of a device with that name; null for an address that was given, which has no need of one.</param>
    /// <param name="kept">What of it outlives this process; null: nothing.</param>
    public StartedDevice Start(StartDeviceOptions options, Func<int, string> nameOf, Func<string?, IExport> openExport, KeptLife? kept = null)
    {
        using IDisposable operation = transport.Begin();
        int queues = kept?.Record.Body.Queues ?? CheckQueues(options);
        int backend = kept?.Record.Body.BackendId ?? options.Backend;
        if ((uint)backend >= (uint)transport.Geometry.BackendCount)
            throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist: ids go from 0 to {transport.Geometry.BackendCount - 1}; see backend-list --all");
        DeviceLife<MappedMemory, SafePolicy> life;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            transport.CheckGoesOn();
            life = new DeviceLife<MappedMemory, SafePolicy>(transport.Session, new DeviceWish
            {
                Backend = backend,
                Record = kept?.Record,
                Adopts = kept is { IsGiven: true },
                Identity = options.DiskIdentity,
                ReadOnly = options.ReadOnly,
                Queues = queues,
                Loss = new LossPolicy(options.OnBackendLoss, options.LossTimeoutSeconds * 1000L),
                QueueOptions = new QueueOptions { PieceBytes = PieceBytes },
                WaitMs = options.Limit?.LeftMs,
            }, MonotonicClock.Milliseconds);
        }

        IExport? export = null;
        DeviceServer? server = null;
        try
        {
            AwaitClearing(life, options.Limit);
            // An address that was given is opened before anything is claimed; the default one needs the id.
            if (options.Nbd is not null)
                export = openExport(null);
            Step(() => life.Claim(MonotonicClock.Milliseconds));
            string name = nameOf(life.Blkdev);
            kept?.Record.Change(body => body with { Name = name });
            options.Limit?.Check("its node or socket is being made");
            export ??= openExport(name);
            export.KeepFor(name);
            server = Activate(life, name, export, options.Mode);
            AwaitAttachment(life, options.Limit);
            if (kept is not null)
            {
                BlkdevState state = life.State!;
                kept.Attachment.SessionOf = () => state.SessionEpoch;
            }

            Step(() => life.BeginServing(MonotonicClock.Milliseconds));
            Serve(server, kept, options.Limit);
        }
        catch (Exception e)
        {
            if (options.Limit is { IsCancelled: false } limit)
                limit.Waits = e.Message;
            TakeBack(life, server, export, e.Message);
            throw;
        }

        Logger.LogInformation("device {Device}: started on backend {Backend} with {Queues} queue(s), {Address}", life.Blkdev, life.Backend, life.QueueCount, server.Address);
        return new StartedDevice(life.Blkdev, server.Address, Name: server.Name);
    }

    /// <summary>The users of what goes on are there already: what cannot be had for a moment is waited for.</summary>
    private void Serve(DeviceServer server, KeptLife? kept, StartLimit? limit)
    {
        string said = "";
        while (true)
        {
            try
            {
                server.Serve();
                return;
            }
            catch (CbdException e) when (e.MayPass && kept is { IsGiven: true })
            {
                if (e.Message != said)
                    Logger.LogWarning("device {Device}: its users wait: {Reason}", server.Device, said = e.Message);
                transport.CheckGoesOn();
                limit?.CheckStopped(e.Message);
                Thread.Sleep(ServeAgainMs);
            }
        }
    }

    /// <summary>How many queues a new device has.</summary>
    public static int CheckQueues(StartDeviceOptions options)
    {
        int queues = options.Queues ?? Math.Min(Environment.ProcessorCount, 4);
        return queues is >= 1 and <= BlkdevBody.MaxQueues
            ? queues
            : throw new CbdException(CbdErrorKind.Invalid, $"queues is {queues}: give a number from 1 to {BlkdevBody.MaxQueues}");
    }

    /// <summary>
    /// Stops a device of this host. Refused while it is used, unless forced. A stop that was accepted and is not done in time goes
    /// on by itself: the answer says so.
    /// </summary>
    /// <param name="device">Its id.</param>
    /// <param name="force">Even if clients are connected.</param>
    /// <param name="name">What it must be called; null: whatever.</param>
    public StopAnswer Stop(int device, bool force, string? name = null)
    {
        using IDisposable operation = transport.Begin();
        DeviceServer server = Find(device);
        if (name is not null && server.Name != name)
            throw new CbdException(CbdErrorKind.NotFound, $"device {device} is called '{server.Name}' now, and not '{name}': see dev-list");
        if (!force && server.Life.Stage == DeviceStage.Serving && server.DescribeUse() is { } use)
            throw new CbdException(CbdErrorKind.Busy, $"device {device} is in use {use}, or stop it with --force");
        Step(() => server.Life.BeginStop(force, MonotonicClock.Milliseconds));
        long limit = MonotonicClock.Milliseconds + StopWaitMs;
        while (!TryFinishStop(server, force))
        {
            if (transport.Verbs.IsEnding || MonotonicClock.Milliseconds > limit)
                return StopAnswer.Stopping($"device {device} is stopping and ends by itself: {server.Life.Status.Reason}; see dev-list, or stop it with --force, which quarantines its channels");
            Thread.Sleep(PollIntervalMs);
        }

        return StopAnswer.Gone;
    }

    /// <summary>
    /// One step of a stop that was accepted. True when nothing is left of the device. Throws, with the device serving on, if the
    /// export is in use after all.
    /// </summary>
    public bool TryFinishStop(DeviceServer server, bool force = true)
    {
        if (server.Life.Stage == DeviceStage.EndingExport)
            EndExport(server, force);
        lock (transport.StateLock)
        {
            // Several verbs may wait for one stop: what one of them was refused ends the wait of all.
            if (server.Life.Stage == DeviceStage.Serving)
                throw new CbdException(CbdErrorKind.Busy, $"device {server.Device} serves on, because another stop of it was refused: see dev-list, and stop it again");
            if (server.Life.Stage == DeviceStage.Closing && MayStep(server.Life))
                server.Life.Step(MonotonicClock.CoarseMicroseconds);
            if (!server.Life.IsOver)
                return false;
        }

        // Before its id can be given out again: the next device of it has the same address.
        server.DisposeExport();
        lock (transport.StateLock)
        {
            if (!transport.DeviceServers.Remove(server))
                return true;
            transport.Membership.Forget(server.Life);
        }

        transport.AnnounceChange();
        Logger.LogInformation("device {Device} stopped{How}", server.Device, server.Life.Session.IsCleared ? "; its claim had been cleared" : "");
        return true;
    }

    private void EndExport(DeviceServer server, bool force)
    {
        try
        {
            server.EndExport(force);
        }
        catch (CbdException)
        {
            Step(() =>
            {
                if (server.Life.Stage == DeviceStage.EndingExport)
                    server.Life.RefuseStop(MonotonicClock.Milliseconds);
            });
            throw;
        }

        Step(() =>
        {
            // Another verb may have ended it, too.
            if (server.Life.Stage == DeviceStage.EndingExport)
                server.Life.EndServing(MonotonicClock.Milliseconds);
        });
    }

    /// <summary>Leaves the devices to the next process of this daemon, as far as they can be; clients of sockets first, because they are waited for.</summary>
    public void Park()
    {
        DeviceServer[] servers;
        lock (transport.StateLock)
            servers = [.. transport.DeviceServers.OrderBy(d => d.Node.Length)];
        foreach (DeviceServer server in servers)
        {
            try
            {
                if (server.TryPark())
                    Logger.LogInformation("device {Device}: its users wait for the next process of this daemon", server.Device);
            }
            catch (Exception e)
            {
                // As if this process had been killed.
                Logger.LogWarning("device {Device}: its users lose their connections: {Reason}", server.Device, e.Message);
            }
        }
    }

    /// <summary>What the devices of this host are called.</summary>
    public IReadOnlyList<string> Names()
    {
        lock (transport.StateLock)
            return [.. transport.DeviceServers.Select(d => d.Name)];
    }

    /// <summary>Names of the devices that this machine's kernel has.</summary>
    public IReadOnlyList<string> KernelNames()
    {
        lock (transport.StateLock)
            return [.. transport.DeviceServers.Where(d => d.Node.Length > 0).Select(d => d.Name)];
    }

    private DeviceServer Find(int device)
    {
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            // Also while this host registers anew.
            if (transport.FindDevice(device) is { } own)
                return own;
            transport.CheckUsable();
            BlkdevListing listing = transport.Session.Blkdevs.List().FirstOrDefault(l => l.Blkdev == device)
                ?? throw new CbdException(CbdErrorKind.NotFound, $"device {device} does not exist on transport {transport.Id}: see dev-list --all");
            if (listing.Word.Host == transport.Session.Claim.Host)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is being started: try again in a moment");
            if (listing.Word.State == ClaimState.Orphaned)
                throw new CbdException(CbdErrorKind.Denied, $"device {device} waits for its daemon, which is away: start that, or give the device up with dev-clear -d {device}");
            throw new CbdException(CbdErrorKind.Denied, $"device {device} belongs to host {listing.Word.Host}, not to this one: stop it there, or clear it with dev-clear if that host is dead");
        }
    }

    private void AwaitClearing(DeviceLife<MappedMemory, SafePolicy> life, StartLimit? limit)
    {
        while (true)
        {
            lock (transport.StateLock)
            {
                if (!life.HasToWait(MonotonicClock.Milliseconds))
                    return;
            }

            transport.CheckGoesOn();
            limit?.Check(life.Status.Reason);
            Thread.Sleep(Transport.StepIntervalMs);
        }
    }

    private DeviceServer Activate(DeviceLife<MappedMemory, SafePolicy> life, string name, IExport export, PollMode mode)
    {
        lock (transport.StateLock)
        {
            life.Activate(export.Uri, MonotonicClock.Milliseconds);
            var server = new DeviceServer(life, name, export, mode, (BeatCondition)life.Session.Condition, Logger) { OnFailed = transport.Node.DeviceFailed };
            transport.DeviceServers.Add(server);
            return server;
        }
    }

    private void AwaitAttachment(DeviceLife<MappedMemory, SafePolicy> life, StartLimit? limit)
    {
        while (true)
        {
            lock (transport.StateLock)
            {
                if (MayStep(life))
                    life.Step(MonotonicClock.CoarseMicroseconds);
                if (life.Stage == DeviceStage.Attached)
                    return;
                if (life.StartTrouble is { Length: > 0 } why)
                    throw new CbdException(CbdErrorKind.TimedOut, $"device {life.Blkdev} not started: {why}") { MayPass = true };
            }

            transport.CheckGoesOn();
            limit?.Check(life.Status.Reason);
            Thread.Sleep(PollIntervalMs);
        }
    }

    /// <summary>A start that came to nothing: whatever of it is there is given back, by housekeeping where that takes long.</summary>
    private void TakeBack(DeviceLife<MappedMemory, SafePolicy> life, DeviceServer? server, IExport? export, string why)
    {
        lock (transport.StateLock)
        {
            life.Cancel(why, MonotonicClock.Milliseconds);
            life.BeginStop(force: true, MonotonicClock.Milliseconds);
            if (server is null)
                transport.Membership.Forget(life);
        }

        if (server is null)
        {
            export?.Dispose();
            return;
        }

        long limit = MonotonicClock.Milliseconds + StopWaitMs;
        while (!TryFinishStop(server) && MonotonicClock.Milliseconds < limit && !transport.Verbs.IsEnding)
            Thread.Sleep(PollIntervalMs);
    }

    private static bool MayStep(DeviceLife<MappedMemory, SafePolicy> life) =>
        life.Session.Condition is { IsFenced: true } or BeatCondition { IsOverdue: false };

    private void Step(Action step)
    {
        lock (transport.StateLock)
            step();
    }
}
