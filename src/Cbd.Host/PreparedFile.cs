namespace Cbd.Host;

/// <summary>
/// A file that has its space before what it says is known, so that nothing can be missing for it then. It is beside its place, with the
/// suffix of <see cref="AtomicFile"/>, until it gets its name, and can be read by all afterwards. Disposed of without a name, it is removed.
/// One thread at a time.
/// </summary>
internal sealed class PreparedFile : IDisposable
{
    private readonly string _path;
    private readonly FileStream _file;
    private bool _isNamed;

    /// <summary>Makes the file. Throws what .NET throws where that cannot be.</summary>
    /// <param name="directory">Where it is.</param>
    /// <param name="mostBytes">Space for so much.</param>
    public PreparedFile(string directory, int mostBytes)
    {
        _path = Path.Combine(directory, $"{Guid.NewGuid():N}{AtomicFile.TemporarySuffix}");
        _file = new FileStream(_path, new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write, BufferSize = 0, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite });
        try
        {
            _file.Write(new byte[mostBytes]);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Puts it at a path of that directory, as a whole, in the place of a file that is there. Not on the medium yet. Throws as above.</summary>
    public void Name(string path, ReadOnlySpan<byte> bytes)
    {
        _file.Position = 0;
        _file.Write(bytes);
        _file.SetLength(bytes.Length);
        // The umask has no say in it.
        File.SetUnixFileMode(_file.SafeFileHandle, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
        File.Move(_path, path, overwrite: true);
        _isNamed = true;
    }

    public void Dispose()
    {
        _file.Dispose();
        if (_isNamed)
            return;
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (AtomicFile.IsOfSystem(e))
        {
            // It says nothing.
        }
    }
}
