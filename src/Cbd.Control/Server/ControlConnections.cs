namespace Cbd.Control.Server;

/// <summary>
/// The clients of the control socket. There are so many at once; if another one comes, the one that has done nothing for longest
/// leaves. A client whose verb is under way stays. Thread-safe.
/// </summary>
/// <param name="limit">Most clients at once.</param>
internal sealed class ControlConnections(int limit)
{
    private readonly Lock _lock = new();

    /// <summary>Those without a verb; the one that has done nothing for longest is the first.</summary>
    private readonly LinkedList<ControlConnection> _quiet = new();
    private int _count;

    /// <summary>Most at once where the process may have so many descriptors.</summary>
    public static int LimitFor(int openFiles) => Math.Clamp(openFiles / 8, 8, 128);

    /// <summary>Lets a client in, in the place of another one if need be; false if all others have a verb under way.</summary>
    public bool TryEnter(ControlConnection client)
    {
        ControlConnection? leaving = null;
        lock (_lock)
        {
            if (_count == limit)
            {
                if (_quiet.First is not { Value: var quietest })
                    return false;
                Remove(leaving = quietest);
            }

            _count++;
            client.IsIn = true;
            _quiet.AddLast(client.Node);
        }

        leaving?.Abort();
        return true;
    }

    /// <summary>The connection ended. Nothing happens if the client had to leave before.</summary>
    public void Leave(ControlConnection client)
    {
        lock (_lock)
            Remove(client);
    }

    /// <summary>A verb of this client begins: until <see cref="EndVerb"/> it does not have to leave.</summary>
    public void BeginVerb(ControlConnection client)
    {
        lock (_lock)
            client.Node.List?.Remove(client.Node);
    }

    /// <summary>The verb has ended, and its answer is on its way.</summary>
    public void EndVerb(ControlConnection client)
    {
        lock (_lock)
        {
            if (client.IsIn && client.Node.List is null)
                _quiet.AddLast(client.Node);
        }
    }

    private void Remove(ControlConnection client)
    {
        if (!client.IsIn)
            return;
        client.IsIn = false;
        client.Node.List?.Remove(client.Node);
        _count--;
    }
}

/// <summary>One connection to the control socket.</summary>
internal sealed class ControlConnection
{
    private readonly Action _abort;

    /// <param name="abort">Ends it at once.</param>
    public ControlConnection(Action abort)
    {
        _abort = abort;
        Node = new LinkedListNode<ControlConnection>(this);
    }

    /// <summary>Its place in the list of <see cref="ControlConnections"/>, which alone uses it, under its lock.</summary>
    public LinkedListNode<ControlConnection> Node { get; }

    /// <summary>It is counted; the same holds.</summary>
    public bool IsIn { get; set; }

    public void Abort() => _abort();
}
