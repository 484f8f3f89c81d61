using Cbd.Host.Sessions;
using Cbd.Host.Threads;
using Cbd.Host.Wanted;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Protocol.Transports;

namespace Cbd.Host.Transports;

/// <summary>What registering on a region came to.</summary>
internal sealed record OpenedTransport(
    RegionSource Source,
    RegionMapping Region,
    TransportInfo Info,
    Membership<MappedMemory, SafePolicy> Membership)
{
    private const int GiveBackWaitMs = 5_000;

    /// <summary>Leaves, before anything was started on it: the entry, its lock and the mapping are given back.</summary>
    public void GiveBack()
    {
        Membership.BeginLeave(MonotonicClock.Milliseconds);
        long limit = MonotonicClock.Milliseconds + GiveBackWaitMs;
        Membership.StepStop(MonotonicClock.Milliseconds);
        while (Membership.StepLeave(MonotonicClock.Milliseconds) == StepResult.Again && MonotonicClock.Milliseconds < limit)
            Thread.Sleep(1);
        Region.Dispose();
        Source.Dispose();
    }
}

/// <summary>Maps a region, formats it if asked, and registers this host on it.</summary>
internal static class TransportOpening
{
    private const int StepIntervalMs = 10;

    /// <param name="id">Id of the transport.</param>
    /// <param name="isTaken">Whether this process is registered on the region of this device and inode.</param>
    public static OpenedTransport Open(int id, RegisterTransportOptions options, NodeOptions node, Func<ulong, ulong, bool> isTaken)
    {
        if (options.Coherence is not (null or "hardware"))
            throw new CbdException(CbdErrorKind.Unsupported, $"coherence '{options.Coherence}' is not supported: this version knows only 'hardware'");
        if (!options.Format && !options.FormatIfEmpty && (options.SizeBytes ?? options.ChannelSizeBytes ?? options.Hosts ?? options.Backends ?? options.Blkdevs ?? options.Channels ?? options.RingSlots) is not null)
            throw new CbdException(CbdErrorKind.Invalid, "size and geometry are chosen when a region is formatted: add --format or --format-if-empty, or leave these options out");
        CheckName(options, node);
        var access = new RegionAccess
        {
            Trust = node.Access.Trust,
            Rights = node.Access.RightsOf(options.Caller),
            Mode = node.Access.RegionMode,
            Group = node.Access.RegionGroup,
        };
        RegionSource source = RegionSource.Open(options.Path, options.Format || options.FormatIfEmpty ? options.SizeBytes : null, access);
        RegionMapping? region = null;
        try
        {
            if (isTaken(source.Device, source.Inode))
                throw new CbdException(CbdErrorKind.Busy, $"region '{options.Path}' is registered by this daemon already: see tp-list");
            if (options.FormatIfEmpty)
                options = options with { Format = IsEmpty(source), Force = false };
            if (options.Format)
            {
                // Before anything is stored over what may be another file.
                source.CheckNames();
                Prepare(options, source);
            }

            region = source.Map();
            return Register(id, options, node, source, region);
        }
        catch
        {
            region?.Dispose();
            source.DeleteIfCreated();
            source.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Nothing is there: no file, none of its bytes, zeros alone, or formatting that has not ended.
    /// </summary>
    private static bool IsEmpty(RegionSource source)
    {
        if (source.SizeBytes < TransportInfo.SizeBytes)
            return source.SizeBytes == 0;
        using RegionMapping region = source.Map();
        // What an interrupted formatter left is taken over.
        return TransportInfo.IsFormatting(region.Memory.ReadAcquire(TransportInfo.MagicOffset)) || RegionContents.Describe(region.Memory).IsZero;
    }

    private static void CheckName(RegisterTransportOptions options, NodeOptions node) => Identify(options, node, 0, 0).Validate();

    private static void Prepare(RegisterTransportOptions options, RegionSource source)
    {
        if (source.RequiresCoherence && options.Coherence is null)
            throw new CbdException(CbdErrorKind.Invalid, $"region '{options.Path}' is shared between machines: say how their caches agree with --coherence hardware");
        long target = Math.Max(options.SizeBytes ?? source.SizeBytes, source.SizeBytes);
        // Before the file grows: nothing changes if the region cannot be laid out.
        RegionPlan.Create(target, Plan(options, source.PageBytes), Guid.NewGuid());
        // Reserved also where the file is long enough: a file with holes on a file system that gets full ends the transport.
        if (source.IsFile || target > source.SizeBytes)
            source.Grow(target);
    }

    private static RegionOptions Plan(RegisterTransportOptions options, int pageBytes) => new()
    {
        Hosts = options.Hosts,
        Backends = options.Backends,
        Blkdevs = options.Blkdevs,
        Channels = options.Channels,
        ChannelSizeBytes = options.ChannelSizeBytes,
        RingSlots = options.RingSlots,
        PayloadCrc = options.PayloadCrc,
        PageBytes = pageBytes,
    };

    private static HostIdentity Identify(RegisterTransportOptions options, NodeOptions node, ulong device, ulong inode) => new()
    {
        Name = options.Host,
        BootId = ProcessIdentity.BootId,
        HostUuid = node.HostUuid,
        Device = device,
        Inode = inode,
        Pid = Environment.ProcessId,
        BeatMs = node.BeatMs,
        DeadMs = node.DeadMs,
    };

    private static OpenedTransport Register(int id, RegisterTransportOptions options, NodeOptions node, RegionSource source, RegionMapping region)
    {
        MappedMemory memory = region.Memory;
        HostIdentity identity = Identify(options, node, region.Device, region.Inode);
        var locks = new OfdHostLocks(region);
        if (options.Format)
        {
            var info = new TransportInfo
            {
                Geometry = RegionPlan.Create(region.SizeBytes, Plan(options, region.PageBytes), Guid.NewGuid()),
                Coherence = RegionCoherence.Hardware,
            };
            var formatter = new Formatter<MappedMemory, SafePolicy>(memory, info, identity, locks, options.Force);
            try
            {
                Format(formatter, options, node, memory);
            }
            finally
            {
                // Whoever has begun to format it, the file has a use.
                if (memory.ReadAcquire(TransportInfo.MagicOffset) != 0)
                    source.Keep();
            }

            source.SetAccess();
        }

        TransportInfo read = ReadInfo(memory, region, options.Path);
        // The claim looks again; before it, nothing has been stored.
        read.CheckWritable();
        source.CheckReaders();
        WantedRules<SafePolicy>.CheckRegion(options.RegionUuid, read.Geometry.RegionId, options.Path, options.Host);
        if (read.Geometry.PageBytes % region.PageBytes != 0)
            throw new CbdException(CbdErrorKind.Unsupported, $"transport info: page_bytes is {read.Geometry.PageBytes}, and this mapping has pages of {region.PageBytes}: format the region where its pages are largest");
        var membership = new Membership<MappedMemory, SafePolicy>(
            $"transport {id}", memory, read.Geometry, identity, locks, node.Times, () => new BeatCondition(node.FenceMs), MonotonicClock.Milliseconds);
        try
        {
            Drive(membership.StepRegister, node, options, "registered on");
        }
        catch
        {
            membership.CancelRegistration();
            throw;
        }

        return new OpenedTransport(source, region, read, membership);
    }

    /// <summary>Of several hosts that find a region empty, one formats it, and the others register on what it made.</summary>
    private static void Format(Formatter<MappedMemory, SafePolicy> formatter, RegisterTransportOptions options, NodeOptions node, MappedMemory memory)
    {
        try
        {
            Drive(formatter.Step, node, options, "formatted");
        }
        catch (CbdException e) when (options.FormatIfEmpty && e.Kind == CbdErrorKind.Busy)
        {
            ulong seen = memory.ReadAcquire(TransportInfo.MagicOffset);
            if (seen != TransportInfo.Magic && !TransportInfo.IsFormatting(seen))
                throw;
            Drive(_ => TransportInfo.IsFormatting(memory.ReadAcquire(TransportInfo.MagicOffset)) ? StepResult.Again : StepResult.Done, node, options, "registered on");
        }
    }

    private static TransportInfo ReadInfo(in MappedMemory memory, RegionMapping region, string path)
    {
        try
        {
            return TransportInfo.Read(memory, region.SizeBytes);
        }
        catch (CbdException e)
        {
            throw new CbdException(e.Kind, $"region '{path}': {e.Message}", e) { MayPass = e.MayPass };
        }
    }

    /// <summary>Steps until done; an undecided neighbour is decided after a dead-time or two.</summary>
    private static void Drive(Func<long, StepResult> step, NodeOptions node, RegisterTransportOptions options, string what)
    {
        long waitMs = node.Times.RegisterMs;
        if (options.Limit is { } given)
            waitMs = given.IsGiven ? given.LeftMs : Math.Min(waitMs, given.LeftMs);
        long limit = MonotonicClock.Milliseconds + waitMs;
        while (step(MonotonicClock.Milliseconds) == StepResult.Again)
        {
            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"region '{options.Path}' could not be {what} within {(waitMs + 500) / 1000} s: another host there does not decide: see host-list, and clear it with host-clear") { MayPass = true };
            options.Limit?.Check($"another host on region '{options.Path}' has to be judged");
            Thread.Sleep(StepIntervalMs);
        }
    }
}
