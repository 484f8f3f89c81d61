namespace Cbd.Blocks;

/// <summary>The errno values that travel in completions (Linux generic numbers, the same on x86-64 and arm64).</summary>
public static class Errno
{
    public const int EPERM = 1;
    public const int EIO = 5;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EINVAL = 22;
    public const int ENOSPC = 28;
    public const int EBADMSG = 74;
    public const int EOVERFLOW = 75;
    public const int EOPNOTSUPP = 95;
    public const int ESHUTDOWN = 108;
    public const int ETIMEDOUT = 110;
}
