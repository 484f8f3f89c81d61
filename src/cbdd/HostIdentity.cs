using System.Text;
using Cbd.Host;
using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>
/// The host uuid: random, made at the first start and kept in <c>&lt;state-dir&gt;/host-uuid</c>. With it a host
/// recognises its own earlier lives. Machine ids cannot serve: cloned machines share them.
/// </summary>
internal static class HostIdentity
{
    /// <summary>A uuid has 36 characters; a longer file is none.</summary>
    private const int MostCharacters = 64;

    public static Guid LoadOrCreate(string stateDirectory, OwnerTrust? trust = null)
    {
        var path = Path.Combine(stateDirectory, "host-uuid");
        string text;
        try
        {
            using var file = ControlSyscalls.TryOpenOwnFile(path, "the host uuid", trust: trust);
            if (file is null)
            {
                var made = Guid.NewGuid();
                AtomicFile.Write(path, Encoding.ASCII.GetBytes($"{made:D}\n"));
                return made;
            }

            using var reader = new StreamReader(file);
            var buffer = new char[MostCharacters];
            text = new string(buffer, 0, reader.ReadBlock(buffer));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"cannot read the host uuid '{path}': {e.Message}", e);
        }

        return Guid.TryParseExact(text.TrimEnd('\n'), "D", out var uuid) && uuid != Guid.Empty
            ? uuid
            : throw new CbdException(CbdErrorKind.Corrupt,
                $"the host uuid in '{path}' is not a uuid; remove the file to get a new one (other hosts then need proof that the old one is dead)");
    }
}
