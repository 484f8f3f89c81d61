using System.Text;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.Supervision;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>A descriptor store: the test is the manager, on a thread, and plays one process of a daemon after the other.</summary>
internal sealed class NbdTestStore : IDisposable
{
    private readonly DatagramSocket _manager;
    private readonly NotifySocket _notify;
    private readonly Thread _thread;
    private readonly PollWake _end = new();
    private readonly Lock _lock = new();
    private readonly KeptDescriptors _kept;
    private readonly List<DescriptorStore> _stores = [];
    private readonly List<string> _refused = [];

    /// <param name="capacity">Descriptors that the manager takes.</param>
    internal NbdTestStore(int capacity = 256)
    {
        _kept = new KeptDescriptors(capacity);
        (DatagramSocket sender, _manager) = DatagramSocket.CreatePair();
        _notify = new NotifySocket(sender);
        _thread = new Thread(Manage);
        _thread.Start();
    }

    /// <summary>What is in the store.</summary>
    internal string[] Names
    {
        get
        {
            lock (_lock)
                return [.. _kept.Names];
        }
    }

    internal int Connections => Names.Count(static name => name.StartsWith("nbdconn-", StringComparison.Ordinal));

    /// <summary>The store in the hands of the next process, which gets back all that is kept.</summary>
    /// <param name="believed">Descriptors that the process is told to be the limit.</param>
    /// <param name="log">Gets its messages.</param>
    internal KeptSockets NextProcess(Action<string> log, int believed = 256)
    {
        var given = new List<GivenDescriptor>();
        lock (_lock)
        {
            foreach ((string name, FileDescriptor descriptor) in _kept.Names.Zip(_kept.Descriptors))
                given.Add(new GivenDescriptor(name, Duplicate(descriptor, 0)));
        }

        Environment.SetEnvironmentVariable("FDSTORE", believed.ToString(System.Globalization.CultureInfo.InvariantCulture));
        DescriptorStore store = DescriptorStore.TryFromEnvironment(_notify, given, out IReadOnlyList<GivenDescriptor> others, log)!;
        Assert.Empty(others);
        _stores.Add(store);
        return new KeptSockets(store, log);
    }

    /// <summary>Does something with the bytes of a state that is kept.</summary>
    internal void WithState(int number, Action<Memory<byte>> work)
    {
        lock (_lock)
        {
            FileDescriptor descriptor = _kept.Descriptors[IndexOfState(number)];
            using var memory = SealedMemory.Open(FileDescriptor.Own(Duplicate(descriptor, KernelConstants.DescriptorCloseOnExec), "copy"), "state", 4096, 1 << 20);
            byte[] bytes = memory.Buffer.GetSpan(0, (int)memory.Buffer.SizeBytes).ToArray();
            work(bytes);
            bytes.CopyTo(memory.Buffer.GetSpan(0, bytes.Length));
        }
    }

    /// <summary>Puts another file in memory in the place of a state.</summary>
    internal void ReplaceState(int number, FileDescriptor descriptor)
    {
        lock (_lock)
        {
            string name = _kept.Names[IndexOfState(number)];
            _kept.Remove(name);
            Assert.Null(_kept.TryAdd(name, descriptor));
        }
    }

    /// <summary>Exchanges the states of the first two connections.</summary>
    internal void SwapStates()
    {
        lock (_lock)
        {
            string[] names = [.. _kept.Names.Where(static name => name.StartsWith("nbdstate-", StringComparison.Ordinal))];
            FileDescriptor[] copies = [.. names[..2].Select(name => FileDescriptor.Own(Duplicate(_kept.Descriptors[_kept.Names.ToList().IndexOf(name)], KernelConstants.DescriptorCloseOnExec), name))];
            _kept.Remove(names[0]);
            _kept.Remove(names[1]);
            Assert.Null(_kept.TryAdd(names[0], copies[1]));
            Assert.Null(_kept.TryAdd(names[1], copies[0]));
        }
    }

    /// <summary>Takes something out, as if it had never come.</summary>
    internal void Forget(string prefix)
    {
        lock (_lock)
            _kept.Remove(_kept.Names.First(name => name.StartsWith(prefix, StringComparison.Ordinal)));
    }

    public void Dispose()
    {
        _end.Signal();
        _thread.Join();
        _stores.ForEach(static store => store.Dispose());
        _end.Dispose();
        _notify.Dispose();
        _manager.Dispose();
        _kept.Dispose();
    }

    private static int Duplicate(FileDescriptor descriptor, int closeOnExec)
    {
        int copy = LibC.FCntl(descriptor, KernelConstants.FcntlDuplicateCloseOnExec, 3);
        Assert.True(copy >= 0);
        // What comes through an exec has no close-on-exec flag.
        using var borrowed = FileDescriptor.Borrow(copy, "copy");
        borrowed.SetInherited(closeOnExec == 0);
        return copy;
    }

    private int IndexOfState(int number)
    {
        string name = _kept.Names.Where(static name => name.StartsWith("nbdstate-", StringComparison.Ordinal)).ElementAt(number);
        return _kept.Names.ToList().IndexOf(name);
    }

    private void Manage()
    {
        using var poll = new EventPoll(2);
        poll.Add(_manager.Descriptor, 1);
        poll.Add(_end, 2);
        var buffer = new byte[1024];
        while (true)
        {
            int count = poll.Wait(-1);
            for (int i = 0; i < count; i++)
            {
                _ = poll.GetEvent(i, out ulong token);
                if (token == 2)
                    return;
            }

            while (_manager.TryReceive(buffer, out ReceivedDatagram datagram))
            {
                lock (_lock)
                    Answer(Encoding.UTF8.GetString(buffer, 0, datagram.Length).Split('\n'), datagram.Descriptors);
            }
        }
    }

    private void Answer(string[] lines, IReadOnlyList<FileDescriptor> descriptors)
    {
        string name = lines.Length > 1 ? lines[1]["FDNAME=".Length..] : "";
        switch (lines[0])
        {
            case "FDSTORE=1":
                FileDescriptor descriptor = Assert.Single(descriptors);
                if (_kept.TryAdd(name, descriptor) is not { } why)
                    return;
                _refused.Add($"{name}: {why}");
                descriptor.Dispose();
                return;
            case "FDSTOREREMOVE=1":
                _kept.Remove(name);
                return;
            case "BARRIER=1":
                foreach (string line in _refused)
                    PipeEnds.WriteSome(descriptors[0], Encoding.UTF8.GetBytes(line + "\n"));
                _refused.Clear();
                descriptors[0].Dispose();
                return;
        }
    }
}
