using Cbd.Memory;
using Cbd.Memory.Store;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// The descriptors that outlive workers, by their names, in the order in which they came. It takes sockets, channels of /dev/fuse and files in memory, as their
/// names say, and nothing else: a descriptor of a region, a disk or a lock would keep the lock of a worker that is dead. One thread at a time.
/// </summary>
internal sealed class KeptDescriptors(int capacity) : IDisposable
{
    /// <summary>More are kept nowhere.</summary>
    public const int MostDescriptors = 1024;

    /// <summary>Open files that the supervisor needs for itself.</summary>
    private const int OwnFiles = 64;

    private readonly List<(string Name, FileDescriptor Descriptor)> _kept = [];

    /// <summary>How many fit where a process may have so many open files: starting a worker takes each of them twice for a moment.</summary>
    /// <param name="openFiles">The limit.</param>
    /// <param name="others">Descriptors that each worker gets besides those that are kept.</param>
    public static int CapacityOf(int openFiles, int others) => Math.Clamp(((openFiles - OwnFiles) / 2) - others, 1, MostDescriptors);

    /// <summary>Names, in the order of <see cref="Descriptors"/>.</summary>
    public IReadOnlyList<string> Names => [.. _kept.Select(kept => kept.Name)];

    public IReadOnlyList<FileDescriptor> Descriptors => [.. _kept.Select(kept => kept.Descriptor)];

    /// <summary>Keeps a descriptor, which is owned then. Returns why not otherwise, in a few words, and it stays the caller's.</summary>
    public string? TryAdd(string name, FileDescriptor descriptor)
    {
        if (StoredName.KindOf(name) is not { } wanted)
            return "it has no name of a stored descriptor";
        var kind = DescriptorKinds.Of(descriptor);
        if (kind != wanted)
            return $"it is {StoredName.Describe(kind)} and not {StoredName.Describe(wanted)}";
        if (_kept.Exists(kept => kept.Name == name))
            return "there is one of that name already";
        if (_kept.Count >= capacity)
            return $"{_kept.Count} are kept, which is the limit: raise that of open files (LimitNOFILE= of the unit, ulimit -n)";
        _kept.Add((name, descriptor));
        return null;
    }

    /// <summary>Closes what is kept under that name, if anything is.</summary>
    public void Remove(string name)
    {
        foreach (var (_, descriptor) in _kept.Where(kept => kept.Name == name))
            descriptor.Dispose();
        _kept.RemoveAll(kept => kept.Name == name);
    }

    public void Dispose()
    {
        foreach (var (_, descriptor) in _kept)
            descriptor.Dispose();
        _kept.Clear();
    }
}
