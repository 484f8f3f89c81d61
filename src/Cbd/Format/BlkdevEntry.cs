namespace Cbd.Format;

public static class BlkdevEntry
{
    public const int SizeBytes = 2048;
}
