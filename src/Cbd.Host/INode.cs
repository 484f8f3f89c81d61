namespace Cbd.Host;

/// <summary>
/// A host in one process: transports, the backends it offers and the blkdevs it uses. It does every operation of
/// <see cref="Operations"/>; the other methods are for the process that it is in.
/// </summary>
internal interface INode : IControl, IDisposable
{
    /// <summary>
    /// Gives a backend up because this host ends, not because somebody wants it stopped: blkdevs that use it wait for its
    /// next session.
    /// </summary>
    void LeaveBackend(int transport, int backend);

    /// <summary>Whether a disk is, or lies on, that node of this machine's kernel.</summary>
    bool LiesOn(string disk, string node);

    /// <summary>
    /// Devices with these names, those that run, and no others are wanted as devices of this machine's kernel. The names are asked for
    /// when no other call is at it.
    /// </summary>
    void KeepNames(Func<IReadOnlyCollection<string>> names);

    /// <summary>Ends devices that a process before this one served, and that are not to be gone on with: their users get I/O errors.</summary>
    /// <param name="isWanted">Whether a device of that name is.</param>
    void EndLives(Predicate<string> isWanted)
    {
    }

    /// <summary>
    /// Leaves what users have to the next process of this daemon. Every claim stays, as if this process had been killed, and this process
    /// has to end at once: nothing else may be called.
    /// </summary>
    void Park()
    {
    }

    /// <summary>Leaves a transport because this host ends: starts on it give up, and what is still there is stopped.</summary>
    void LeaveTransport(int transport);

    IReadOnlyList<TransportDescription> ListTransports() => Execute(Operations.ListTransports, new ControlRequest());

    /// <summary>The last events of the channels of which this host has a side.</summary>
    IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter) =>
        Execute(Operations.ReadFlights, filter with { Transport = transport });
}

/// <summary>Quarantined entries of a transport, by area.</summary>
internal readonly record struct QuarantineCounts(int Hosts, int Backends, int Blkdevs, int Channels);

/// <summary>What threads used since they started: CPU time, and managed memory that they allocated.</summary>
internal readonly record struct ThreadUsage(long CpuMicroseconds, long AllocatedBytes);
