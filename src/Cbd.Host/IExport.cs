namespace Cbd.Host;

/// <summary>How a node gives its devices to users; implemented by the exports, called by the node.</summary>
internal interface IExportFactory
{
    /// <summary>
    /// Checks the address and binds it; <paramref name="address"/> as in <see cref="StartDeviceOptions.Nbd"/>, already
    /// defaulted. The export serves nothing until <see cref="IExport.Serve"/>.
    /// </summary>
    IExport Open(string address, SocketOptions options);
}

/// <summary>One export: an address that clients connect to and, once it serves, a device behind it.</summary>
internal interface IExport : IDisposable
{
    /// <summary>What a client connects to, e.g. <c>nbd+unix:///?socket=/run/cbd/cbd0.nbd</c>.</summary>
    string Uri { get; }

    /// <summary>Clients connected now.</summary>
    int ClientCount { get; }

    /// <summary>
    /// Starts serving <paramref name="device"/> on threads of the export's own. <paramref name="queues"/> queues are
    /// opened from it, each driven by one thread, which waits as <paramref name="mode"/> says.
    /// </summary>
    void Serve(Cbd.Blocks.IBlockDevice device, int queues, PollMode mode);

    /// <summary>
    /// Tells what the device is called, before it serves. What of the export outlives this process from now on is kept under that name.
    /// </summary>
    /// <exception cref="CbdException">It cannot be kept.</exception>
    void KeepFor(string device)
    {
    }

    /// <summary>The kernel's own node, where there is one and it is there.</summary>
    string Node => "";

    /// <summary>What the one who started it may not expect, in one line; empty if there is nothing.</summary>
    string Note => "";

    /// <summary>
    /// Called, if it is set before <see cref="Serve"/>, when <see cref="FindTrouble"/> may have something new. From any thread; must not block.
    /// </summary>
    Action? LookAgain
    {
        get => null;
        set { }
    }

    /// <summary>
    /// What another program has done to it, with the remedy; null if nothing. If there is trouble, its name is removed: what had the name
    /// may be another's. System calls. Any thread.
    /// </summary>
    string? FindTrouble() => null;

    /// <summary>Who uses it, and what they must do so that it can be stopped, as the rest of "it is in use"; null if nobody does.</summary>
    string? DescribeUse() => ClientCount == 0 ? null : $"by {ClientCount} client(s) of {Uri}: disconnect them";

    /// <summary>
    /// The device has another size, and this says so to those who use it, where they do not see it by themselves.
    /// Throws Unsupported where that cannot be done.
    /// </summary>
    void Resize()
    {
    }

    /// <summary>
    /// Ends its threads, and leaves its users and what they asked for to the next process of this daemon, which serves them on. Nothing that
    /// the device has not done is answered. Only the end of this process may follow. False, and nothing is done, where nobody keeps it.
    /// </summary>
    bool TryPark() => false;

    /// <summary>
    /// Stops accepting, ends the connections after their requests were answered, and closes the queues. Not forced it
    /// may throw Busy, because it is in use after all, and serves on then.
    /// </summary>
    void Stop(bool force);
}
