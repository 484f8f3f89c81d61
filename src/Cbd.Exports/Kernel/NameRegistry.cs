using Cbd.Host;
using Cbd.Memory;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Exports.Kernel;

/// <summary>
/// The names of devices on this machine, of all daemons: takes them, and removes those of killed daemons. Names are held
/// for a moment to look at them; a lock around that keeps a daemon from taking this for a living owner. Thread-safe.
/// </summary>
internal sealed class NameRegistry(AttachPlaces places)
{
    private const int LockTimeoutMs = 5000;
    private const int LockPollMs = 10;

    /// <summary>Holds a name, without what a killed daemon left of it; null if a living daemon has the name.</summary>
    /// <param name="name">The name.</param>
    /// <param name="goesOn">What a killed daemon left of it stays.</param>
    internal HeldName? TryTake(string name, bool goesOn = false)
    {
        try
        {
            using SafeFileHandle entered = Enter();
            HeldName? held = HeldName.TryHold(places, name);
            try
            {
                if (!goesOn)
                    _ = held?.Forget();
                return held;
            }
            catch
            {
                held?.Dispose();
                throw;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(e is UnauthorizedAccessException ? CbdErrorKind.Denied : AtomicFile.KindOf(e), $"cannot use '{places.Registry}', where the names of devices are kept, or '{places.Nodes}': {AtomicFile.Describe(e)}", e);
        }
    }

    /// <summary>
    /// Removes the names of killed daemons: afterwards nothing of theirs leads to a node, whoever gets that next. Names that were given
    /// back go, too.
    /// </summary>
    /// <param name="log">Gets one line for each.</param>
    /// <param name="isKept">Names that go on with another process, and stay; null: none.</param>
    /// <param name="goesOn">Nodes of the kernel whose names stay, whoever's they are; null: none.</param>
    internal void ForgetLeftovers(Action<string> log, Predicate<string>? isKept = null, Predicate<string>? goesOn = null)
    {
        if (!Directory.Exists(places.Registry))
            return;
        Try("the names of killed daemons", log, () =>
        {
            using SafeFileHandle entered = Enter();
            foreach (string name in places.Names().Where(name => isKept?.Invoke(name) != true))
                Try($"the name {places.LinkOf(name)} of a killed cbdd", log, () => ForgetLeftover(name, goesOn, log));
        });
    }

    /// <summary>
    /// Removes every name that leads to a node whose daemon has ended, so that the node may be given back. False if a
    /// living daemon has that node after all, or if a name cannot be removed: then it must not be given back.
    /// </summary>
    internal bool TryForgetNode(string node, Action<string> log)
    {
        string kernelName = Path.GetFileName(node);
        if (Names(kernelName).Count == 0)
            return true;
        bool isFree = false;
        Try($"the name of {node}, which stays therefore,", log, () =>
        {
            using SafeFileHandle entered = Enter();
            isFree = Names(kernelName).TrueForAll(name => TryForget(name, kernelName));
        });
        return isFree;
    }

    private List<string> Names(string kernelName) => [.. places.LinksTo(kernelName).Append(places.NameAt(kernelName)).Where(name => name.Length > 0).Distinct()];

    private bool TryForget(string name, string kernelName)
    {
        using HeldName? held = HeldName.TryHold(places, name);
        if (held is not null)
        {
            held.Forget(kernelName);
            return true;
        }

        // A living daemon's name. It writes the node down before it makes anything that leads there.
        if (NameRecord.Read(places.LockOf(name)).Node == kernelName || places.LinksTo(kernelName).Contains(name))
            return false;
        File.Delete(places.EntryOf(kernelName));
        return true;
    }

    private void ForgetLeftover(string name, Predicate<string>? goesOn, Action<string> log)
    {
        using HeldName? held = HeldName.TryHold(places, name);
        if (held is null || (held.Node is { Length: > 0 } node && goesOn?.Invoke(node) == true))
            return;
        string process = held.Process;
        if (held.Forget())
            log($"the name {held.Link} was left by a killed cbdd (pid {(process.Length > 0 ? process : "unknown")}) and is removed");
        // Otherwise each name that ever was would stay until a reboot. Whoever locks this file has the registry locked, so nobody can
        // lock the removed file.
        File.Delete(places.LockOf(name));
    }

    /// <summary>Locks the registry for a moment.</summary>
    internal SafeFileHandle Enter()
    {
        Directory.CreateDirectory(places.Entries);
        places.Trust.CheckDirectory(places.Entries, "directory of device names", "remove it, so that cbdd makes it anew");
        SafeFileHandle file = ControlSyscalls.OpenLockFile(places.RegistryLock);
        try
        {
            for (int waited = 0; !ControlSyscalls.TryLockExclusive(file, places.RegistryLock); waited += LockPollMs)
            {
                if (waited >= LockTimeoutMs)
                    throw new CbdException(CbdErrorKind.Busy, $"'{places.RegistryLock}' has been locked by another process for {LockTimeoutMs / 1000} s: see with lslocks which one, and try again");
                Thread.Sleep(LockPollMs);
            }

            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static void Try(string what, Action<string> log, Action remove)
    {
        try
        {
            remove();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CbdException)
        {
            log($"{what} cannot be removed: {e.Message}");
        }
    }
}
